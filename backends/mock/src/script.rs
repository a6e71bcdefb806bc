//! What a workload of the mock does, as data and as arguments.

use marram_backend_api::{ErrorKind, ExitReason};
use std::time::Duration;

/// What a workload does. The default runs until it is stopped and then ends with code 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// `prepare` fails so, this many times.
    pub prepare_error: Option<(ErrorKind, u32)>,
    /// `start` fails so, this many times.
    pub start_error: Option<(ErrorKind, u32)>,
    /// How long it runs; `None` until it is stopped.
    pub run_for: Option<Duration>,
    /// Code it ends with by itself.
    pub exit_code: i32,
    /// What it does on SIGTERM.
    pub on_term: OnTerm,
    /// Printed at the start.
    pub output: String,
    /// Prints `NAME 0`, `NAME 1` and so on.
    pub ticks: Option<(String, Duration)>,
    /// Runs out of memory at once if it has a limit.
    pub eats_memory: bool,
    /// Uses all the processor time it gets.
    pub spins: bool,
    /// Starts this many processes beside its own, then prints `forked`.
    pub forks: u32,
}

/// What a workload does on SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTerm {
    /// Ends.
    End(ExitReason),
    /// Nothing: it has to be killed.
    Ignore,
}

impl Default for OnTerm {
    fn default() -> Self {
        Self::End(ExitReason::Code(0))
    }
}

/// An argument that is no part of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError(pub String);

impl std::fmt::Display for ScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is no argument of a scripted workload", self.0)
    }
}

impl std::error::Error for ScriptError {}

const KINDS: [(&str, ErrorKind); 6] = [
    ("invalid", ErrorKind::Invalid),
    ("unsupported", ErrorKind::Unsupported),
    ("not-found", ErrorKind::NotFound),
    ("transient", ErrorKind::Transient),
    ("exhausted", ErrorKind::Exhausted),
    ("internal", ErrorKind::Internal),
];

fn error_to_text(&(kind, times): &(ErrorKind, u32)) -> String {
    let name = KINDS.iter().find(|(_, known)| *known == kind).map_or("internal", |(name, _)| name);
    format!("{name}*{times}")
}

fn error_from_text(text: &str) -> Option<(ErrorKind, u32)> {
    let (name, times) = text.split_once('*')?;
    let (_, kind) = KINDS.iter().find(|(known, _)| *known == name)?;
    Some((*kind, times.parse().ok()?))
}

impl Script {
    /// The arguments that say this script, so that it can travel in a specification.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut say = |key: &str, value: String| all.push(format!("{key}={value}"));
        if let Some(error) = &self.prepare_error {
            say("prepare-error", error_to_text(error));
        }
        if let Some(error) = &self.start_error {
            say("start-error", error_to_text(error));
        }
        if let Some(run_for) = self.run_for {
            say("run-for-ms", run_for.as_millis().to_string());
        }
        if self.exit_code != 0 {
            say("exit-code", self.exit_code.to_string());
        }
        match self.on_term {
            OnTerm::Ignore => say("on-term", "ignore".into()),
            OnTerm::End(ExitReason::Code(0)) => {}
            OnTerm::End(ExitReason::Code(code)) => say("on-term", format!("code {code}")),
            OnTerm::End(ExitReason::Signal(signal)) => say("on-term", format!("signal {signal}")),
            OnTerm::End(ExitReason::OutOfMemory) => say("on-term", "oom".into()),
            OnTerm::End(ExitReason::Lost) => say("on-term", "lost".into()),
        }
        if !self.output.is_empty() {
            say("output", self.output.clone());
        }
        if let Some((name, every)) = &self.ticks {
            say("ticks", format!("{} {name}", every.as_millis()));
        }
        for (key, on) in [("eats-memory", self.eats_memory), ("spins", self.spins)] {
            if on {
                say(key, "yes".into());
            }
        }
        if self.forks != 0 {
            say("forks", self.forks.to_string());
        }
        all
    }

    /// Reads such arguments; none is the default script.
    pub fn from_arguments(arguments: &[String]) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        for argument in arguments {
            let known = argument.split_once('=').and_then(|(key, value)| script.set(key, value));
            known.ok_or_else(|| ScriptError(argument.clone()))?;
        }
        Ok(script)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "prepare-error" => self.prepare_error = Some(error_from_text(value)?),
            "start-error" => self.start_error = Some(error_from_text(value)?),
            "run-for-ms" => self.run_for = Some(Duration::from_millis(value.parse().ok()?)),
            "exit-code" => self.exit_code = value.parse().ok()?,
            "on-term" => self.on_term = on_term(value)?,
            "output" => self.output = value.to_owned(),
            "ticks" => {
                let (every, name) = value.split_once(' ')?;
                let every: u64 = every.parse().ok().filter(|every| *every > 0)?;
                self.ticks = Some((name.to_owned(), Duration::from_millis(every)));
            }
            "eats-memory" => self.eats_memory = value == "yes",
            "spins" => self.spins = value == "yes",
            "forks" => self.forks = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

fn on_term(value: &str) -> Option<OnTerm> {
    Some(OnTerm::End(match value.split_once(' ') {
        None if value == "ignore" => return Some(OnTerm::Ignore),
        None if value == "oom" => ExitReason::OutOfMemory,
        None if value == "lost" => ExitReason::Lost,
        Some(("code", code)) => ExitReason::Code(code.parse().ok()?),
        Some(("signal", signal)) => ExitReason::Signal(signal.parse().ok()?),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_travels_in_arguments() {
        let full = Script {
            prepare_error: Some((ErrorKind::NotFound, 2)),
            start_error: Some((ErrorKind::Transient, 1)),
            run_for: Some(Duration::from_millis(50)),
            exit_code: -3,
            on_term: OnTerm::End(ExitReason::Signal(15)),
            output: "a=b\n".into(),
            ticks: Some(("tick tock".into(), Duration::from_millis(20))),
            eats_memory: true,
            spins: true,
            forks: 9,
        };
        assert_eq!(Script::from_arguments(&full.to_arguments()), Ok(full.clone()));
        for on_term in [
            OnTerm::Ignore,
            OnTerm::End(ExitReason::Code(7)),
            OnTerm::End(ExitReason::OutOfMemory),
            OnTerm::End(ExitReason::Lost),
        ] {
            let script = Script { on_term, ..full.clone() };
            assert_eq!(Script::from_arguments(&script.to_arguments()), Ok(script));
        }
        assert_eq!(Script::from_arguments(&[]), Ok(Script::default()));
        for bad in ["", "x", "x=1", "ticks=5", "ticks=0 a", "on-term=code", "start-error=odd*1"] {
            assert!(Script::from_arguments(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }
}
