//! `make`: what setup says is missing, the summary after the tests, and what is built twice.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::deploy::{root, text_of};
use crate::tools;

fn script(path: &str) -> Command {
    let mut command = Command::new("/bin/bash");
    command.arg(root().join(path));
    command
}

fn said(out: Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Where no program is found.
#[test]
fn setup_says_at_once_what_is_missing_and_what_goes_untested() {
    let mut setup = script("scripts/setup.sh");
    let said = said(
        setup
            .arg("missing")
            .env("PATH", "/nowhere")
            .env("PGRESTORED_TOOLS", "/nowhere/tools")
            .env("XDG_CACHE_HOME", "/nowhere")
            .output()
            .unwrap(),
    );
    let packages = said.lines().find(|l| l.contains("packages are missing: "));
    for package in [
        "build-essential",
        "prometheus",
        "chromium",
        "python3-venv",
        "npm",
    ] {
        assert!(packages.unwrap().contains(package), "{package}: {said}");
    }
    for tool in ["kubectl", "terraform"] {
        let line = said
            .lines()
            .find(|l| l.contains(&format!("{tool} is missing")));
        assert!(line.unwrap().ends_with("goes untested"), "{said}");
    }
    let setup = text_of("scripts/setup.sh");
    assert!(setup.contains("Google's Pub/Sub emulator is missing"));
}

/// What commands print that call the functions of `scripts/tools.sh`, where `tools` in `folder` is the shared folder.
fn with_tools(folder: &Path, commands: &str) -> String {
    let mut bash = Command::new("/bin/bash");
    bash.args(["-c", &format!(". \"$1\"; {commands}"), "bash"])
        .arg(root().join("scripts/tools.sh"))
        .env("PGRESTORED_TOOLS", folder.join("tools"))
        .env("XDG_CACHE_HOME", folder.join("cache"));
    said(bash.output().unwrap()).trim_end().to_owned()
}

/// The folders for tools: the shared one, and the two that a user's own ones may be in.
fn folders(folder: &Path) -> [String; 3] {
    let all = with_tools(
        folder,
        "printf '%s\\n' \"$shared_tools\" \"${own_tools[@]}\"",
    );
    let all: Vec<String> = all.lines().map(str::to_owned).collect();
    all.try_into().unwrap()
}

/// A venv of the right version whose programs run `program`.
fn create_venv(folder: &Path, tools: &str, program: &Path) {
    let venv = Path::new(tools).join("python");
    std::fs::create_dir_all(venv.join("bin")).unwrap();
    for name in ["yamllint", "hadolint"] {
        let name = venv.join("bin").join(name);
        let _ = std::fs::remove_file(&name);
        symlink(program, name).unwrap();
    }
    let version = with_tools(folder, "echo \"$python_packages\"");
    std::fs::write(venv.join("installed"), version + "\n").unwrap();
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_user_who_cannot_run_a_shared_tool_uses_an_own_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [shared, beside, cached] = folders(folder);
    let python = || with_tools(folder, "place_of python || echo none");
    let refusing = folder.join("refusing");
    write_program(&refusing, "exit 126");
    assert_eq!(python(), "none");
    for unusable in [Path::new("/nowhere/python3"), refusing.as_path()] {
        create_venv(folder, &shared, unusable);
        assert_eq!(python(), "none", "{}", unusable.display());
    }
    for own in [cached, beside] {
        create_venv(folder, &own, Path::new("/bin/true"));
        assert_eq!(python(), format!("{own}/python"));
    }
    create_venv(folder, &shared, Path::new("/bin/true"));
    assert_eq!(python(), format!("{shared}/python"));

    let mut tools = script("scripts/tools.sh");
    tools.arg("python").env("PGRESTORED_TOOLS", &shared);
    assert_eq!(said(tools.output().unwrap()), format!("{shared}/python\n"));
    let out = tools.arg("more").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    let mut tools = script("scripts/tools.sh");
    let none = tools.arg("helm").env("PGRESTORED_TOOLS", &shared);
    let out = none.env("XDG_CACHE_HOME", folder).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let why = String::from_utf8(out.stderr).unwrap();
    assert!(
        why.contains(&shared) && why.ends_with(": run make setup\n"),
        "{why}"
    );
}

/// A file in the place of a folder keeps even root from writing there.
#[test]
fn setup_installs_in_the_first_folder_that_can_be_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let room = || with_tools(folder, "room_for python || echo none");
    for place in folders(folder) {
        assert_eq!(room(), place);
        let left = std::fs::read_dir(&place).unwrap().count();
        assert_eq!(left, 0, "{place}");
        std::fs::remove_dir(&place).unwrap();
        std::fs::write(&place, "").unwrap();
    }
    assert_eq!(room(), "none");
}

#[test]
fn the_shared_venv_is_of_a_python_that_every_user_can_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let home = folder.join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
    let closed = home.join("python3.11");
    let [first, second] = ["first", "second"].map(|f| folder.join(f));
    for (path, interpreter) in [(&first, closed.as_path()), (&second, Path::new("/bin/sh"))] {
        std::fs::create_dir(path).unwrap();
        let says = format!("echo '{}'", interpreter.display());
        write_program(&path.join("python3"), &says);
    }
    write_program(&closed, "");
    // Bash remembers where a program is that it ran.
    let choose = |path: &str, whose: &str| {
        let commands = format!("PATH={path}; python3 >&2; python_for {whose} || echo none");
        with_tools(folder, &commands)
    };
    let rest = "/usr/bin:/bin";
    let (first, second) = (first.display(), second.display());
    let both = format!("{first}:{second}:{rest}");
    assert_eq!(choose(&both, "all"), "/bin/sh");
    assert_eq!(choose(&both, ""), closed.to_str().unwrap());
}

#[test]
fn the_summary_lists_skipped_tests() {
    let folder = tempfile::tempdir().unwrap();
    let summary = |tests: &str| {
        let report = folder.path().join("nextest/default");
        std::fs::create_dir_all(&report).unwrap();
        std::fs::write(report.join("junit.xml"), tests).unwrap();
        let mut slowest = script("scripts/slowest.sh");
        said(
            slowest
                .env("CARGO_TARGET_DIR", folder.path())
                .output()
                .unwrap(),
        )
    };
    let case = |name: &str, printed: &str| {
        format!(
            "<testcase name=\"{name}\" classname=\"pgrestored::cloud\" time=\"1.500\">\n<system-err>{printed}</system-err>\n</testcase>\n"
        )
    };
    let skipped = "x\nSKIPPED: Google&apos;s emulator is not installed: run make setup\ny";
    let whole = summary(&(case("a::fine", "x") + &case("b::lacking", skipped)));
    assert!(
        whole.contains("slowest of 2 tests, 3 seconds in total:"),
        "{whole}"
    );
    let line = "  b::lacking: Google's emulator is not installed: run make setup\n";
    assert!(whole.ends_with(line), "{whole}");
    assert_eq!(whole.matches("not installed").count(), 1, "{whole}");
    let whole = summary(&case("a::fine", "not SKIPPED: at all"));
    assert!(whole.ends_with("no test was skipped\n"), "{whole}");
    assert!(text_of(".config/nextest.toml").contains("junit.store-success-output = true"));
}

/// The tests need other features of the dependencies than the program alone.
#[test]
fn the_demo_and_the_tests_build_the_same_dependencies() {
    for file in ["Makefile", "scripts/screenshots.sh"] {
        let text = text_of(file);
        assert!(!text.contains("cargo run"), "{file}");
        for line in text.lines().filter(|l| l.contains("cargo build")) {
            assert!(line.contains("--test "), "{file}: {line}");
        }
    }
}

#[test]
fn a_recording_shows_every_line_in_thirty_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("demo.svg");
    let recorded = Command::new("python3")
        .arg(root().join("scripts/recording.py"))
        .arg(&picture)
        .args(["sh", "-c", "echo 'a <b> & c'; seq 500"])
        .output();
    let Ok(recorded) = recorded else {
        return tools::skip("python3");
    };
    said(recorded);
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(
        picture.contains(">$ make demo</tspan>")
            && picture.contains(">a &lt;b&gt; &amp; c</tspan>")
    );
    assert!(picture.contains(">500</tspan>"));
    let (_, after) = picture.split_once("animation:up ").unwrap();
    let seconds: f64 = after.split('s').next().unwrap().parse().unwrap();
    assert!((5.0..=30.0).contains(&seconds), "{seconds}");
}
