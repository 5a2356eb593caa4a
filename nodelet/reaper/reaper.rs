//! First process of a PID namespace that a pod's containers share.
//!
//! It waits for a byte on standard input: the end of the file before one says that the agent died
//! half way. After that it sleeps for ever. Whoever starts it has SIGCHLD ignored, so that the
//! kernel itself takes away the orphans that become its children.

#![no_std]
#![no_main]

use core::arch::asm;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const CLOSE: usize = 3;
    pub const EXIT: usize = 60;
    pub const PPOLL: usize = 271;
    pub const PRCTL: usize = 157;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: usize = 63;
    pub const CLOSE: usize = 57;
    pub const EXIT: usize = 93;
    pub const PPOLL: usize = 73;
    pub const PRCTL: usize = 167;
}

const PR_SET_DUMPABLE: usize = 4;

#[cfg(target_arch = "x86_64")]
fn syscall(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result;
    // SAFETY: the calls below touch no memory but the byte that `read` is given.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b,
            in("rdx") c, in("r10") 0, in("r8") 0, lateout("rcx") _, lateout("r11") _);
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn syscall(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result;
    // SAFETY: the calls below touch no memory but the byte that `read` is given.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b,
            in("x2") c, in("x3") 0, in("x4") 0);
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let mut byte = 0_u8;
    syscall(number::PRCTL, PR_SET_DUMPABLE, 0, 0);
    if syscall(number::READ, 0, &raw mut byte as usize, 1) != 1 {
        loop {
            syscall(number::EXIT, 1, 0, 0);
        }
    }
    for stream in 0..3 {
        syscall(number::CLOSE, stream, 0, 0);
    }
    loop {
        syscall(number::PPOLL, 0, 0, 0);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {
        syscall(number::EXIT, 2, 0, 0);
    }
}
