//! The default filter of system calls.
//!
//! Why a list of what is allowed: a new kernel brings new calls, and they should be closed
//! until somebody has thought about them. The list holds what programs without special
//! rights need; calls that act on the whole host (modules, clocks, mounts, tracing of the
//! kernel, keys, swap) are left out, as are calls that make new namespaces.
//!
//! Names that a runtime's libseccomp or the architecture does not know are skipped by it,
//! so one table serves all architectures.

use super::Built;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscallBuilder,
};

/// `EPERM`: what a program sees of a call that is closed.
const EPERM: u32 = 1;

/// `ENOSYS`: makes C libraries fall back from `clone3`, whose flags a filter cannot see.
const ENOSYS: u32 = 38;

/// Every `CLONE_NEW…` flag that `clone` knows, as one mask. (Its low byte is a signal; the
/// flag for time namespaces exists in `clone3` only.)
const NAMESPACE_FLAGS: u64 = 0x7E02_0000;

/// `AF_VSOCK`: a way past the network to the hypervisor.
const AF_VSOCK: u64 = 40;

/// `AF_ALG`: the kernel's cryptography, with a long history of holes and few users.
const AF_ALG: u64 = 38;

/// Personalities that only change what a program sees of itself: Linux, 32-bit `uname`,
/// both without the other, and "ask".
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// What may be called with any arguments.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    // Files and folders.
    "access", "chdir", "chmod", "chown", "chown32", "close", "close_range", "copy_file_range",
    "creat", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fadvise64_64",
    "arm_fadvise64_64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock",
    "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync",
    "ftruncate", "ftruncate64", "futimesat", "getcwd", "getdents", "getdents64", "getxattr",
    "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "lchown", "lchown32", "lgetxattr", "link", "linkat", "listxattr", "listxattrat", "llistxattr",
    "_llseek", "lremovexattr", "lseek", "lsetxattr", "lstat", "lstat64", "mkdir", "mkdirat",
    "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2", "readlink",
    "readlinkat", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir",
    "setxattr", "setxattrat", "stat", "stat64", "statfs", "statfs64", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "sync_file_range2", "arm_sync_file_range", "syncfs",
    "truncate", "truncate64", "umask", "unlink", "unlinkat", "utime", "utimensat",
    "utimensat_time64", "utimes", "chroot", "fanotify_mark",
    // Reading and writing.
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64",
    "io_setup", "io_submit", "ioctl", "ioprio_get", "ioprio_set", "pipe", "pipe2", "pread64",
    "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readv",
    "sendfile", "sendfile64", "splice", "tee", "vmsplice", "write", "writev", "cachestat",
    // Waiting.
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "_newselect", "pause", "poll", "ppoll",
    "ppoll_time64", "pselect6", "pselect6_time64", "select", "signalfd", "signalfd4",
    // Memory.
    "brk", "get_mempolicy", "madvise", "map_shadow_stack", "membarrier", "memfd_create",
    "memfd_secret", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect",
    "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "process_mrelease", "remap_file_pages", "set_mempolicy", "mbind",
    "set_mempolicy_home_node", "shmat", "shmctl", "shmdt", "shmget",
    // Processes and threads.
    "execve", "execveat", "exit", "exit_group", "fork", "vfork", "getcpu", "getpgid", "getpgrp",
    "getpid", "getppid", "getpriority", "getrlimit", "ugetrlimit", "getrusage", "getsid",
    "gettid", "kill", "pidfd_open", "pidfd_send_signal", "prctl", "arch_prctl",
    "prlimit64", "process_madvise", "rseq", "sched_get_priority_max", "sched_get_priority_min",
    "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "setpgid", "setpriority",
    "setrlimit", "setsid", "set_robust_list", "get_robust_list", "set_thread_area",
    "get_thread_area", "set_tid_address", "tgkill", "tkill", "times", "wait4", "waitid", "waitpid",
    "modify_ldt", "breakpoint", "cacheflush", "set_tls", "riscv_flush_icache", "riscv_hwprobe",
    "ptrace", "process_vm_readv", "process_vm_writev", "futex", "futex_time64",
    "futex_wait", "futex_waitv", "futex_wake", "futex_requeue", "lsm_get_self_attr",
    "lsm_list_modules", "lsm_set_self_attr",
    // Who one is.
    "capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getresgid", "getresgid32", "getresuid", "getresuid32", "getuid",
    "getuid32", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32",
    "setgroups", "setgroups32", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid",
    "setresuid32", "setreuid", "setreuid32", "setuid", "setuid32", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self",
    // Signals and time.
    "alarm", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64",
    "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep",
    "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
    "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64",
    "rt_tgsigqueueinfo", "setitimer", "sigaction", "sigaltstack", "sigpending", "sigprocmask",
    "sigreturn", "sigsuspend", "time", "timer_create", "timer_delete", "timer_getoverrun",
    "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64", "timerfd_create",
    "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64",
    // Network and messages.
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg",
    "sendto", "setsockopt", "shutdown", "socketcall", "socketpair", "ipc", "mq_getsetattr",
    "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget",
    "semop", "semtimedop", "semtimedop_time64",
    // About the system, read only.
    "getrandom", "sysinfo", "uname", "adjtimex", "clock_adjtime", "clock_adjtime64",
];

/// The filter for this host's architecture.
pub(super) fn profile() -> Built<LinuxSeccomp> {
    let mut calls = vec![allow(ALLOWED).build()?];
    let masked = argument(0, LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS, Some(0))?;
    calls.push(allow(&["clone"]).args(vec![masked]).build()?);
    calls.push(
        LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(ENOSYS)
            .build()?,
    );
    for personality in PERSONALITIES {
        let same = argument(0, LinuxSeccompOperator::ScmpCmpEq, personality, None)?;
        calls.push(allow(&["personality"]).args(vec![same]).build()?);
    }
    // Families between, below and above the two that are closed: a rule's arguments must all
    // hold, so "neither" takes one rule for each stretch that is open.
    for (operator, family) in [
        (LinuxSeccompOperator::ScmpCmpLt, AF_ALG),
        (LinuxSeccompOperator::ScmpCmpEq, AF_ALG + 1),
        (LinuxSeccompOperator::ScmpCmpGt, AF_VSOCK),
    ] {
        let open = argument(0, operator, family, None)?;
        calls.push(allow(&["socket"]).args(vec![open]).build()?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures())
        .syscalls(calls)
        .build()
}

fn allow(names: &[&str]) -> LinuxSyscallBuilder {
    LinuxSyscallBuilder::default()
        .names(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow)
}

fn argument(
    index: usize,
    operator: LinuxSeccompOperator,
    value: u64,
    second: Option<u64>,
) -> Built<LinuxSeccompArg> {
    let builder = LinuxSeccompArgBuilder::default().index(index).value(value).op(operator);
    let builder = match second {
        Some(second) => builder.value_two(second),
        None => builder,
    };
    builder.build()
}

/// The architecture and the older ones whose programs its kernel also runs: a filter that
/// did not name them would be passed by their calls.
fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "arm" => vec![Arch::ScmpArchArm],
        "x86" => vec![Arch::ScmpArchX86],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_names_each_call_once_and_none_that_acts_on_the_host() {
        let all: BTreeSet<&str> = ALLOWED.iter().copied().collect();
        assert_eq!(all.len(), ALLOWED.len(), "a call is listed twice");
        for closed in [
            "mount",
            "umount2",
            "unshare",
            "setns",
            "init_module",
            "finit_module",
            "kexec_load",
            "bpf",
            "perf_event_open",
            "reboot",
            "swapon",
            "settimeofday",
            "clock_settime",
            "add_key",
            "keyctl",
            "open_by_handle_at",
            "pivot_root",
            "userfaultfd",
            "io_uring_setup",
            "clone",
            "clone3",
            "socket",
            "personality",
            "iopl",
            "acct",
            "syslog",
            "lookup_dcookie",
        ] {
            assert!(!all.contains(closed), "{closed} is open");
        }
    }

    #[test]
    fn the_profile_is_closed_by_default() {
        let profile = profile().unwrap();
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert!(profile.architectures().as_ref().is_some_and(|all| !all.is_empty()));
    }
}
