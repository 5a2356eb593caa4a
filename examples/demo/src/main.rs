//! The program inside the examples' images. One static binary, so that an image can be made of
//! it without a base image and without a network.
//!
//! ```text
//! peapod-demo serve               answers with $GREETING and the pod's name
//! peapod-demo counter FILE        counts requests in a file that outlives the pod
//! peapod-demo front URL           answers with what the back says
//! peapod-demo get URL [SECONDS]   fetches once, for probes and people
//! peapod-demo resolve NAME        prints the addresses of a name
//! ```
//!
//! Servers listen on $PORT (8080), and on SIGTERM go on serving for $DRAIN_MS (1000) before they
//! end, so that requests that are on their way to them are still answered.

mod http;

use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] | ["serve"] => http::serve(greeting),
        ["counter", file] => counter(file.to_string()),
        ["front", url] => front(url.to_string()),
        ["get", url] => get(url, 5),
        ["get", url, seconds] => match seconds.parse() {
            Ok(seconds) => get(url, seconds),
            Err(_) => Err(format!("{seconds:?} is no number of seconds").into()),
        },
        ["resolve", name] => resolve(name),
        _ => Err("say serve, counter FILE, front URL, get URL or resolve NAME".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn pod() -> String {
    variable("POD_NAME", &variable("HOSTNAME", "nobody"))
}

fn greeting(request: &http::Request) -> http::Reply {
    let text = format!("{} from {}\n", variable("GREETING", "hello"), pod());
    match request.path.as_str() {
        "/client" => http::Reply::ok(format!("{}\n", request.client)),
        "/healthz" => http::Reply::ok("ok\n".to_owned()),
        _ => http::Reply::ok(text),
    }
}

/// Each request adds one to a number that is on disk before it is said.
fn counter(file: String) -> http::Outcome {
    let turn = Mutex::new(());
    http::serve(move |request| {
        if request.path == "/healthz" {
            return http::Reply::ok("ok\n".to_owned());
        }
        let _turn = turn.lock();
        match count_up(&file) {
            Ok(number) => http::Reply::ok(format!("{number}\n")),
            Err(error) => http::Reply::failed(format!("cannot count in {file}: {error}\n")),
        }
    })
}

fn count_up(file: &str) -> std::io::Result<u64> {
    let before = match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map_err(std::io::Error::other)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let partial = format!("{file}.partial");
    std::fs::write(&partial, format!("{}\n", before + 1))?;
    std::fs::File::open(&partial)?.sync_all()?;
    std::fs::rename(&partial, file)?;
    Ok(before + 1)
}

fn front(url: String) -> http::Outcome {
    http::serve(move |request| {
        if request.path == "/healthz" {
            return http::Reply::ok("ok\n".to_owned());
        }
        match http::get(&url, Duration::from_secs(5)) {
            Ok(body) => http::Reply::ok(format!("front {} asked the back: {body}", pod())),
            Err(error) => {
                http::Reply::failed(format!("the back at {url} does not answer: {error}\n"))
            }
        }
    })
}

fn get(url: &str, seconds: u64) -> http::Outcome {
    print!("{}", http::get(url, Duration::from_secs(seconds))?);
    Ok(())
}

fn resolve(name: &str) -> http::Outcome {
    for address in (name, 0).to_socket_addrs()? {
        println!("{}", address.ip());
    }
    Ok(())
}
