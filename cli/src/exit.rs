//! What the exit code of `marram` means: one table, for the code and for `--help`.
//!
//! Why a macro: scripts depend on these numbers, so the text that people read and the numbers
//! that the program uses must not be able to differ.
//!
//! Invariant: a number keeps its meaning; new ones go to the end.

macro_rules! exits {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// How a command ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Exit {
            $(#[doc = $text] $name = $code,)*
        }

        /// The table as `--help` shows it.
        pub(crate) const HELP: &str = concat!(
            "Exit codes:\n",
            $("  ", $code, "  ", $text, "\n",)*
            "  exec ends with the code of the program it ran, 128+N if signal N ended it,\n",
            "  and 125 if marram itself failed.",
        );

        #[cfg(test)]
        const ALL: &[(Exit, u8)] = &[$((Exit::$name, $code),)*];
    };
}

exits! {
    Done = 0, "done";
    Failed = 1, "failed: a workload did not come up, or something broke";
    Usage = 2, "usage: the command line, a file or the configuration is wrong, or a name is ambiguous";
    Refused = 3, "refused: not logged in, not allowed, or not safe";
    NotFound = 4, "not found";
    Unreachable = 5, "unreachable: no server answers there";
    Timeout = 6, "timeout: it did not happen within the time given";
    Invalid = 7, "invalid: the server found the descriptor or the request wrong";
}

/// What `exec` ends with when marram itself failed, so that it is not taken for the program's.
pub(crate) const EXEC_FAILED: u8 = 125;

impl Exit {
    /// The number for the operating system.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_each_code_once() {
        for (exit, code) in ALL {
            assert_eq!(exit.code(), *code);
            let starts = format!("\n  {code}  ");
            assert_eq!(HELP.matches(&starts).count(), 1, "{starts:?}");
        }
    }
}
