//! Loop devices, file systems and mounts, by the usual programs.

use std::fs;
use std::path::Path;

use peapod_nodelet::volumes::mounts::is_mount_point;
use tonic::Status;

use super::internal;
use crate::command;

/// Runs a program; what it says if it succeeds.
fn run(program: &str, args: &[&str]) -> Result<String, Status> {
    let done = command::run(program, args).map_err(internal)?;
    let said = done
        .ok()
        .map_err(|error| internal(format!("{program}: {error}")))?;
    Ok(said.trim().to_owned())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The loop device of a file.
pub fn attached(file: &Path) -> Result<Option<String>, Status> {
    let found = run(
        "losetup",
        &["--noheadings", "--output", "NAME", "-j", &text(file)],
    )?;
    Ok(found.lines().next().map(|line| line.trim().to_owned()))
}

/// The loop device of a file, made if there is none.
pub fn attach(file: &Path) -> Result<String, Status> {
    match attached(file)? {
        Some(device) => Ok(device),
        None => run("losetup", &["--find", "--show", &text(file)]),
    }
}

/// Takes a file's loop device away.
pub fn detach(file: &Path) -> Result<(), Status> {
    while let Some(device) = attached(file)? {
        run("losetup", &["--detach", &device])?;
        if attached(file)?.as_deref() == Some(&device) {
            return Err(Status::internal(format!("{device} is busy")));
        }
    }
    Ok(())
}

/// Makes an ext4 of a device that has no file system.
pub fn format(device: &str) -> Result<(), Status> {
    let known = command::run("blkid", ["-p", "-s", "TYPE", "-o", "value", device]);
    if known.map_err(internal)?.stdout.trim() == "ext4" {
        return Ok(());
    }
    run("mkfs.ext4", &["-q", "-F", "-m", "0", device]).map(drop)
}

/// Mounts a device, unless something is mounted there.
pub fn mount(device: &str, target: &Path, options: &[String]) -> Result<(), Status> {
    if is_mount_point(target) {
        return Ok(());
    }
    fs::create_dir_all(target).map_err(internal)?;
    let options = match options {
        [] => "defaults".to_owned(),
        options => options.join(","),
    };
    run(
        "mount",
        &["-t", "ext4", "-o", &options, device, &text(target)],
    )
    .map(drop)
}

/// Shows a directory or a device at another place too.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), Status> {
    if is_mount_point(target) {
        return Ok(());
    }
    match source.is_dir() {
        true => fs::create_dir_all(target).map_err(internal)?,
        false => drop(fs::File::create(target).map_err(internal)?),
    }
    run("mount", &["--bind", &text(source), &text(target)])?;
    match read_only {
        true => run("mount", &["-o", "remount,bind,ro", &text(target)]).map(drop),
        false => Ok(()),
    }
}

/// Takes a mount and its place away.
pub fn unmount(target: &Path) -> Result<(), Status> {
    while is_mount_point(target) {
        run("umount", &[&text(target)])?;
    }
    let removed = match target.is_dir() {
        true => fs::remove_dir(target),
        false => fs::remove_file(target),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(internal(error)),
        _ => Ok(()),
    }
}

/// Lets a device and the file system on it grow to its file.
pub fn grow(file: &Path, mounted: bool) -> Result<(), Status> {
    let device = attached(file)?.ok_or_else(|| Status::not_found("it is not attached"))?;
    run("losetup", &["--set-capacity", &device])?;
    match mounted {
        true => run("resize2fs", &[&device]).map(drop),
        false => Ok(()),
    }
}
