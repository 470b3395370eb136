//! Moves secrets that were given as flags into the environment, because `ps` shows arguments.

use std::os::unix::process::CommandExt;

/// Flags with secret values, and their variables.
const SECRETS: [(&str, &str); 7] = [
    ("--db-password", "DB_PASSWORD"),
    ("--db-restricted-password", "DB_RESTRICTED_PASSWORD"),
    ("--scratch-db-password", "SCRATCH_DB_PASSWORD"),
    ("--backup-age-identity", "BACKUP_AGE_IDENTITY"),
    ("--evidence-signing-key", "EVIDENCE_SIGNING_KEY"),
    ("--mask-key", "MASK_KEY"),
    ("--request-signing-key", "REQUEST_SIGNING_KEY"),
];

/// Splits arguments into those to keep and the secrets to pass as variables.
fn without_secrets(
    args: impl Iterator<Item = String>,
) -> (Vec<String>, Vec<(&'static str, String)>) {
    let (mut kept, mut moved, mut args) = (Vec::new(), Vec::new(), args);
    while let Some(arg) = args.next() {
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        match SECRETS.iter().find(|(f, _)| *f == flag) {
            // The parser reports a flag without a value.
            Some((_, variable)) => match value.or_else(|| args.next()) {
                Some(value) => moved.push((*variable, value)),
                None => kept.push(arg),
            },
            None => kept.push(arg),
        }
    }
    (kept, moved)
}

/// The command line of this process, beginning with the program's own name.
pub fn arguments() -> Vec<std::ffi::OsString> {
    std::env::args_os().collect()
}

/// Executes this program again, in the same process, with secrets in the environment that were given
/// as flags. Returns if there are none.
pub fn hide_secrets() {
    let Ok(args) = std::env::args_os()
        .skip(1)
        .map(|a| a.into_string())
        .collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    let (kept, moved) = without_secrets(args.into_iter());
    let (false, Ok(program)) = (moved.is_empty(), std::env::current_exe()) else {
        return;
    };
    // If that fails, the program continues with the flags as they are.
    let _ = std::process::Command::new(program)
        .args(kept)
        .envs(moved)
        .exec();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_move_to_the_environment_and_other_arguments_stay() {
        let args = [
            "worker",
            "--db-password=a=b",
            "--db-user",
            "x",
            "--scratch-db-password",
            "c d",
            "--db-password-file=f",
        ];
        let (kept, moved) = without_secrets(args.into_iter().map(str::to_owned));
        assert_eq!(kept, ["worker", "--db-user", "x", "--db-password-file=f"]);
        assert_eq!(
            moved,
            [
                ("DB_PASSWORD", "a=b".to_owned()),
                ("SCRATCH_DB_PASSWORD", "c d".to_owned())
            ]
        );
    }
}
