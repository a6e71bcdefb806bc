//! The terminal in its raw form, for `exec -t` and for passwords, and given back as it was.
//!
//! Why apart: a terminal that is left raw is useless to the operator, so there is one guard, and
//! it covers every way out: return, error, signal (they arrive on a socket that the loops poll,
//! so they end as a return) and panic (a hook, since a panic aborts in release builds).

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{self, OptionalActions, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::Error;

/// Signals that ask a program to end.
pub(crate) const ENDING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

fn failed(error: impl Into<std::io::Error>) -> Error {
    Error::io("set up", "the terminal", error.into())
}

/// Signals as something to poll.
pub(crate) struct Signals {
    arrived: UnixStream,
}

impl Signals {
    /// Takes signals over from now on, for the rest of the process.
    pub(crate) fn take(signals: &[i32]) -> Result<Self, Error> {
        let (arrived, sender) = UnixStream::pair().map_err(failed)?;
        arrived.set_nonblocking(true).map_err(failed)?;
        for signal in signals {
            let sender = sender.try_clone().map_err(failed)?;
            signal_hook::low_level::pipe::register(*signal, sender).map_err(failed)?;
        }
        Ok(Self { arrived })
    }

    /// To poll for reading.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.arrived, PollFlags::IN)
    }

    /// Whether one arrived since it was last asked.
    pub(crate) fn arrived(&self) -> bool {
        let mut buffer = [0; 64];
        let mut any = false;
        while (&self.arrived).read(&mut buffer).is_ok_and(|read| read > 0) {
            any = true;
        }
        any
    }
}

/// Waits until one of these is ready.
pub(crate) fn poll(fds: &mut [PollFd<'_>]) -> Result<(), Error> {
    match rustix::event::poll(fds, None) {
        // A signal came; if it is one of ours, it is to be read now.
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The terminal is raw as long as this lives.
pub(crate) struct Raw {
    saved: Termios,
}

impl Raw {
    /// Makes standard input raw.
    pub(crate) fn enter() -> Result<Self, Error> {
        let saved = termios::tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = saved.clone();
        raw.make_raw();
        let (for_panic, previous) = (saved.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |info| {
            restore(&for_panic);
            previous(info);
        }));
        termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &raw).map_err(failed)?;
        Ok(Self { saved })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore(&self.saved);
    }
}

fn restore(saved: &Termios) {
    // A terminal that is gone needs nothing restored.
    termios::tcsetattr(std::io::stdin(), OptionalActions::Now, saved).ok();
}

/// Rows and columns of standard input's terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(std::io::stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Longest password that can be typed.
const PASSWORD_CHARS_MAX: usize = 256;

/// Asks for a password, which is not shown.
pub(crate) fn ask_password(prompt: &str) -> Result<String, Error> {
    let signals = Signals::take(&ENDING)?;
    let mut stderr = std::io::stderr();
    // If the question cannot be shown, the answer is still read.
    stderr.write_all(prompt.as_bytes()).ok();
    let raw = Raw::enter()?;
    let answer = read_password(&signals);
    drop(raw);
    stderr.write_all(b"\n").ok();
    answer
}

fn read_password(signals: &Signals) -> Result<String, Error> {
    const INTERRUPT: u8 = 3;
    const END_OF_FILE: u8 = 4;
    const BACKSPACE: [u8; 2] = [8, 127];
    let stopped = || Error::Failed("interrupted".into());
    let mut typed = Vec::new();
    loop {
        let stdin = std::io::stdin();
        poll(&mut [PollFd::new(&stdin, PollFlags::IN), signals.poll_fd()])?;
        if signals.arrived() {
            return Err(stopped());
        }
        let mut byte = [0];
        match rustix::io::read(stdin.as_fd(), &mut byte) {
            Ok(0) => return Err(stopped()),
            Ok(_) => {}
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(error) => return Err(failed(error)),
        }
        match byte[0] {
            b'\r' | b'\n' => break,
            INTERRUPT | END_OF_FILE => return Err(stopped()),
            byte if BACKSPACE.contains(&byte) => {
                // A character of UTF-8 goes as a whole.
                while typed.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
            }
            byte if typed.len() < PASSWORD_CHARS_MAX => typed.push(byte),
            _ => {
                return Err(Error::Usage(format!(
                    "a password has at most {PASSWORD_CHARS_MAX} bytes"
                )));
            }
        }
    }
    String::from_utf8(typed).map_err(|_| Error::Usage("the password is not UTF-8".into()))
}
