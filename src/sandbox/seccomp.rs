//! The last step before a sandbox's server starts: a seccomp filter that refuses system calls that a database
//! server never makes and that attacks on the kernel need. `util-linux` in current distributions has no option
//! for it, so this program applies the filter to itself and then executes the server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// The first argument of the launcher, followed by `--` and the command to run. Internal, not a documented command.
pub(super) const COMMAND: &str = "sandbox-exec";

/// The program that applies the filter. Only `main` can set it, because this library also runs in other programs.
static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();

/// Sets the path of the `pgrestored` program; without it, sandboxes have no seccomp filter. The first call counts.
pub fn set_launcher(pgrestored: PathBuf) {
    let _ = LAUNCHER.set(pgrestored);
}

pub(super) fn launcher() -> Option<&'static Path> {
    LAUNCHER.get().map(PathBuf::as_path).filter(|l| l.is_file())
}

/// Executes the command after `sandbox-exec --` under the filter. Returns `None` for any other arguments, and
/// otherwise only on failure.
pub fn launch(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    arguments.next();
    if arguments.next()? != COMMAND {
        return None;
    }
    let command = arguments
        .next()
        .filter(|a| a == "--")
        .and_then(|_| arguments.next());
    let failed = match (command, apply()) {
        (None, _) => format!("usage: {COMMAND} -- COMMAND"),
        (_, Err(e)) => format!("failed to apply the seccomp filter: {e}"),
        (Some(command), Ok(())) => {
            let failed = Command::new(&command).args(arguments).exec();
            format!("{}: {failed}", command.display())
        }
    };
    // Standard error is the log of the sandbox's server; `tracing` is not set up here.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("pgrestored: {failed}\n").as_bytes(),
    );
    Some(ExitCode::FAILURE)
}

/// Applies the filters to this thread and to whatever it executes; sets `no_new_privs`.
fn apply() -> Result<(), Error> {
    filters()?
        .iter()
        .try_for_each(|filter| apply_filter(filter))
}

/// The filters. The kernel evaluates all of them, and applies the strictest action. System calls of another
/// architecture kill the process.
fn filters() -> Result<Vec<BpfProgram>, Error> {
    let arch = TargetArch::try_from(ARCH)?;
    let filter = |rules, errno: i32| -> Result<BpfProgram, Error> {
        let denied = SeccompAction::Errno(errno.unsigned_abs());
        Ok(SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?.try_into()?)
    };
    let mut filters = vec![
        filter(denied_calls()?, libc::EPERM)?,
        // The flags of `clone3` are in memory, where a filter cannot see them. On ENOSYS the C library falls back
        // to `clone`.
        filter(BTreeMap::from([(libc::SYS_clone3, vec![])]), libc::ENOSYS)?,
    ];
    if cfg!(target_arch = "x86_64") {
        filters.push(without_x32());
    }
    Ok(filters)
}

const ARCH: &str = if cfg!(target_arch = "aarch64") {
    "aarch64"
} else {
    "x86_64"
};

/// System calls that are denied whatever their arguments.
const DENIED: &[i64] = &[
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    // Access to other processes, and to files by handle.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Large kernel subsystems that a database server does not use.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Administration of the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// `open_tree_attr`: the same number on every architecture; the `libc` crate does not define it.
const OPEN_TREE_ATTR: i64 = 467;

/// `kexec_file_load`: the `libc` crate does not define it for aarch64 and musl.
const KEXEC_FILE_LOAD: i64 = if cfg!(target_arch = "x86_64") {
    320
} else {
    294
};

/// Flags of `clone` that create namespaces. `CLONE_NEWTIME` is not valid there.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The denied calls, with rules about their arguments: a call is denied if all conditions of any of its rules
/// hold.
fn denied_calls() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    // The kernel uses only the lower 32 bits of each of these arguments.
    let first =
        |op, value: i32| SeccompCondition::new(0, Len::Dword, op, u64::from(value.cast_unsigned()));
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> =
        DENIED.iter().map(|call| (*call, vec![])).collect();
    let mut namespaces = vec![];
    for flag in NAMESPACES {
        let is_set = Op::MaskedEq(u64::from(flag.cast_unsigned()));
        namespaces.push(SeccompRule::new(vec![first(is_set, flag)?])?);
    }
    denied.insert(libc::SYS_clone, namespaces);
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        denied.insert(
            call,
            vec![SeccompRule::new(vec![first(Op::Ne, libc::AF_UNIX)?])?],
        );
    }
    // Allow the default personality, and the query for the current one.
    let unusual = vec![first(Op::Ne, 0)?, first(Op::Ne, -1)?];
    denied.insert(libc::SYS_personality, vec![SeccompRule::new(unusual)?]);
    Ok(denied)
}

/// Refuses x32 calls: on x86-64 they have the same architecture, but numbers of their own that no rule above covers.
fn without_x32() -> BpfProgram {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const X32: u32 = 0x4000_0000;
    let step = |code, jt, k| seccompiler::sock_filter { code, jt, jf: 0, k };
    vec![
        step(LOAD, 0, 0),
        step(JUMP_IF_AT_LEAST, 1, X32),
        step(RETURN, 0, SeccompAction::Allow.into()),
        step(
            RETURN,
            0,
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()).into(),
        ),
    ]
}
