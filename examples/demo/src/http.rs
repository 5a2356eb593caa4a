//! As much HTTP/1.1 as the demo needs: one request per connection.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

/// What a command of the demo ends with.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Longest request line and headers, and longest reply that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Most connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// A request.
pub struct Request {
    /// Its path.
    pub path: String,
    /// Who asks, as this host sees it.
    pub client: SocketAddr,
}

/// A reply.
pub struct Reply {
    status: &'static str,
    body: String,
}

impl Reply {
    /// 200
    pub fn ok(body: String) -> Self {
        Self {
            status: "200 OK",
            body,
        }
    }

    /// 502
    pub fn failed(body: String) -> Self {
        Self {
            status: "502 Bad Gateway",
            body,
        }
    }
}

/// Serves until SIGTERM, and a little longer.
pub fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Outcome {
    let port: u16 = crate::variable("PORT", "8080").parse()?;
    let drain: u64 = crate::variable("DRAIN_MS", "1000").parse()?;
    // A dual-stack socket where the kernel has IPv6, an IPv4 socket elsewhere.
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    println!("serving on {}", listener.local_addr()?);
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    std::thread::spawn(move || accept(&listener, Arc::new(answer)));
    signals.forever().next();
    println!("asked to end; serving for {drain} ms more");
    std::thread::sleep(Duration::from_millis(drain));
    Ok(())
}

fn accept(listener: &TcpListener, answer: Arc<impl Fn(&Request) -> Reply + Send + Sync + 'static>) {
    let busy = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if busy.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            busy.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (answer, busy) = (Arc::clone(&answer), Arc::clone(&busy));
        std::thread::spawn(move || {
            if let Err(error) = converse(stream, answer.as_ref()) {
                eprintln!("a connection ended early: {error}");
            }
            busy.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

fn converse(mut stream: TcpStream, answer: &impl Fn(&Request) -> Reply) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let client = stream.peer_addr()?;
    let mut reader = BufReader::new(stream.try_clone()?.take(MAX_BYTES));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split_whitespace().nth(1).unwrap_or("/").to_owned();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
    }
    let reply = answer(&Request { path, client });
    write!(
        stream,
        "HTTP/1.1 {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        reply.status,
        reply.body.len(),
        reply.body
    )?;
    stream.flush()
}

/// The body that an `http://HOST[:PORT]/PATH` answers with 200.
pub fn get(url: &str, timeout: Duration) -> Result<String, Box<dyn Error + Send + Sync>> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("the URL must begin with http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let target = if has_port {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = target
        .to_socket_addrs()?
        .next()
        .ok_or("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("the reply is cut off")?;
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(format!("status {}: {}", status.unwrap_or("missing"), body.trim()).into()),
    }
}
