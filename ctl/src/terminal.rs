//! What is particular to a person at a terminal: sentences, colours only on one, progress.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One clear sentence of an error and what caused it, without repeating a cause that its
/// consequence already quotes.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Whether standard output is a terminal.
pub fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Ends the process without a word, as SIGPIPE would, once nobody reads its output (`... | head`).
///
/// The signal itself stays ignored: it would end the process for a lost connection as well.
pub fn end_with_reader() {
    const AS_SIGPIPE: i32 = 128 + libc::SIGPIPE;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // What `print!` says; it offers no other way.
        let text = panic.payload().downcast_ref::<String>();
        let unread = text.is_some_and(|text| {
            text.starts_with("failed printing to stdout") && text.contains("Broken pipe")
        });
        if unread {
            std::process::exit(AS_SIGPIPE);
        }
        usual(panic);
    }));
}

/// The terminal's width in columns, if standard output is one.
pub fn width() -> Option<usize> {
    if !on_terminal() {
        return None;
    }
    let (_, columns) = console_size()?;
    Some(columns as usize)
}

/// Rows and columns of the terminal on standard output.
pub fn console_size() -> Option<(u16, u16)> {
    nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ fills the winsize that the pointer names; it lives through the call.
    unsafe { window_size(libc::STDOUT_FILENO, &mut size) }.ok()?;
    (size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Steps of long work: a spinner on a terminal, a line per step elsewhere.
pub struct Steps {
    bar: Option<ProgressBar>,
}

impl Steps {
    /// Starts without a step.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Self { bar }
    }

    /// Says what is being done now.
    pub fn begin(&self, step: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(step.to_owned()),
            None => eprintln!("{step}"),
        }
    }

    /// Leaves the terminal clean.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.finish();
    }
}
