//! The netlink socket: commits transactions and runs dumps.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};

use crate::consts::NFNLGRP_NFTABLES;
use crate::error::Error;
use crate::sys;
use crate::transaction::Transaction;
use crate::wire::{Attrs, HEADER_LEN, Messages, Received, Writer};

/// The kernel sends dumps in pieces of at most this.
const RECEIVE_BYTES: usize = 64 * 1024;
const ANSWER_BUFFER_BYTES: usize = 1024 * 1024;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A connection to nf_tables in the network namespace of the thread that opened it.
pub struct Nft {
    socket: Socket,
    buffer: Vec<u8>,
    send_bytes: usize,
}

impl Nft {
    /// Opens one; needs `CAP_NET_ADMIN` to be useful.
    pub fn open() -> Result<Self, Error> {
        let socket = connect().map_err(Error::Open)?;
        Ok(Nft {
            socket,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
            send_bytes: 0,
        })
    }

    /// Applies a transaction as a whole, or nothing of it. An empty one is a no-op.
    pub fn commit(&mut self, mut transaction: Transaction) -> Result<(), Error> {
        if transaction.is_empty() {
            return Ok(());
        }
        transaction.finish();
        let what = || {
            format!(
                "a transaction of {} operations",
                transaction.operations.len()
            )
        };
        self.send(&transaction.writer, &what)?;
        let mut acknowledged = false;
        let mut refusal = None;
        // The kernel has done its work and queued every answer by the time the send returns.
        while let Some(answers) = self.try_receive(&what)? {
            for answer in Messages(&answers) {
                let Some((errno, message)) = parse_error(&answer) else {
                    continue;
                };
                acknowledged = true;
                if errno != 0 && refusal.is_none() {
                    let operation = transaction.operations.get(&answer.sequence);
                    refusal = Some(Error::Refused {
                        what: operation.cloned().unwrap_or_else(what),
                        message,
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None if acknowledged => Ok(()),
            None => Err(Error::Receive {
                what: what(),
                source: io::ErrorKind::UnexpectedEof.into(),
            }),
        }
    }

    pub(crate) fn send(&mut self, writer: &Writer, what: &dyn Fn() -> String) -> Result<(), Error> {
        let send_error = |source| Error::Send {
            what: what(),
            source,
        };
        if writer.len() > self.send_bytes {
            sys::grow_send_buffer(&self.socket, writer.len()).map_err(send_error)?;
            self.send_bytes = writer.len();
        }
        self.socket.send(writer.bytes(), 0).map_err(send_error)?;
        Ok(())
    }

    /// Runs a dump, giving each message's family and attributes to `take`. Returns whether
    /// the ruleset changed meanwhile, so that what was read may be no state that ever was.
    pub(crate) fn dump(
        &mut self,
        request: &Writer,
        what: &dyn Fn() -> String,
        mut take: impl FnMut(u8, Attrs<'_>),
    ) -> Result<bool, Error> {
        self.send(request, what)?;
        let mut interrupted = false;
        loop {
            let answers = self.receive(0, what)?;
            for answer in Messages(&answers) {
                interrupted |= answer.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                if let Some((errno, message)) = parse_error(&answer) {
                    if errno == 0 {
                        return Ok(interrupted);
                    }
                    return Err(Error::Refused {
                        what: what(),
                        message,
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
                if i32::from(answer.kind) == libc::NLMSG_DONE {
                    return Ok(interrupted);
                }
                take(answer.family(), answer.attrs());
            }
        }
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        request: &Writer,
        what: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        self.dump(request, what, |_, _| {}).map(|_| ())
    }

    fn try_receive(&mut self, what: &dyn Fn() -> String) -> Result<Option<Vec<u8>>, Error> {
        match self.receive(libc::MSG_DONTWAIT, what) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Receive { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    fn receive(&mut self, flags: libc::c_int, what: &dyn Fn() -> String) -> Result<Vec<u8>, Error> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, flags) {
                Ok(_) => {
                    return Ok(std::mem::replace(
                        &mut self.buffer,
                        Vec::with_capacity(RECEIVE_BYTES),
                    ));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Receive {
                        what: what(),
                        source,
                    });
                }
            }
        }
    }
}

fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    sys::terse_errors(&socket)?;
    sys::grow_receive_buffer(&socket, ANSWER_BUFFER_BYTES)?;
    Ok(socket)
}

/// An error or acknowledgement: its number (0 is success) and the kernel's words.
fn parse_error(answer: &Received<'_>) -> Option<(i32, Option<String>)> {
    if i32::from(answer.kind) != libc::NLMSG_ERROR {
        return None;
    }
    let errno = i32::from_ne_bytes(answer.payload.get(..4)?.try_into().ok()?);
    // Behind the number: the head of our message (its body is left out), then attributes.
    let extended = answer.payload.get(4 + HEADER_LEN..).unwrap_or_default();
    Some((-errno, Attrs(extended).string(NLMSGERR_ATTR_MSG)))
}

/// Wakes on changes that anyone makes to a ruleset of this network namespace. It tells that
/// something changed, not what: readers read again.
pub struct Watch {
    socket: TokioSocket,
}

impl Watch {
    /// Subscribes; what changes from now on is noticed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Self, Error> {
        let subscribe = || {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind_auto()?;
            socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
            Ok(socket)
        };
        subscribe()
            .map(|socket| Watch { socket })
            .map_err(Error::Open)
    }

    /// Waits for a change. Safe to cancel.
    pub async fn changed(&mut self) -> Result<(), Error> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        match self.socket.recv(&mut buffer).await {
            // More changed than fits the socket's buffer: that is a change, too.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            Err(source) => Err(Error::Receive {
                what: "the watch of the ruleset".to_owned(),
                source,
            }),
            Ok(()) => Ok(()),
        }
    }

    /// Takes the changes that have been told already.
    pub fn drain(&mut self) {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match self
                .socket
                .socket_ref()
                .recv(&mut buffer, libc::MSG_DONTWAIT)
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An overrun is told once, and what is left can be read.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}
