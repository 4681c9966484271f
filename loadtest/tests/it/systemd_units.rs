//! The unit files of `infra/systemd`: systemd takes them, and what they set is what the programs have.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use loadtest::places::Places;
use proto::limits::EXECUTION_SECONDS;

/// A unit with the example of its settings.
struct Unit {
    program: PathBuf,
    file: PathBuf,
    settings: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/systemd")
}

/// Lines of the form `NAME=VALUE`; of several with one name the last.
fn assignments(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn units() -> [Unit; 2] {
    let places = Places::find().unwrap();
    [("worker", places.worker), ("ingress", places.ingress)].map(|(name, program)| {
        let file = directory().join(format!("hearth-{name}.service"));
        Unit {
            program,
            settings: assignments(&file),
            file,
            environment: assignments(&directory().join(format!("{name}.env.example"))),
        }
    })
}

impl Unit {
    fn seconds(&self, name: &str) -> u32 {
        let found = self.settings.get(name);
        let found = found.or_else(|| self.environment.get(name));
        found
            .unwrap_or_else(|| panic!("no {name}"))
            .parse()
            .unwrap()
    }

    /// Words of the command line behind the program.
    fn words(&self) -> Vec<&str> {
        let mut words = self.settings["ExecStart"].split(' ');
        let program = Path::new(words.next().unwrap());
        assert_eq!(program.file_name(), self.program.file_name());
        words.collect()
    }
}

#[test]
fn systemd_takes_the_units() {
    for unit in units() {
        let text = fs::read_to_string(&unit.file).unwrap();
        let installed = unit.settings["ExecStart"].split(' ').next().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join(unit.file.file_name().unwrap());
        // It looks for the program, which is installed nowhere here.
        fs::write(
            &copy,
            text.replace(installed, unit.program.to_str().unwrap()),
        )
        .unwrap();
        let verified = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&copy)
            .output()
            .expect("systemd-analyze, which `make prerequisites` installs");
        // Settings that it does not know are only said.
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "{said}");
        assert!(!said.contains(copy.to_str().unwrap()), "{said}");
    }
}

#[test]
fn a_stop_reaches_the_program_alone_and_waits_for_its_end() {
    let [worker, ingress] = units();
    for unit in [&worker, &ingress] {
        assert_eq!(unit.settings["KillMode"], "mixed");
        assert_eq!(unit.settings["ExecReload"], "/bin/kill -HUP $MAINPID");
    }
    assert_eq!(worker.settings["Delegate"], "yes");
    let drain = worker.seconds("HEARTH_DRAIN_SECONDS");
    assert!(worker.seconds("TimeoutStopSec") >= drain + 30);
    let lame_duck = ingress.seconds("HEARTH_LAME_DUCK_SECONDS");
    assert!(ingress.seconds("TimeoutStopSec") > lame_duck + EXECUTION_SECONDS + 10);
}

#[test]
fn every_setting_of_the_examples_is_one_of_the_program() {
    for unit in units() {
        let help = Command::new(&unit.program)
            .args(unit.words())
            .arg("--help")
            .output()
            .unwrap();
        assert!(help.status.success());
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(unit.environment.len() > 8);
        for (name, value) in &unit.environment {
            assert!(help.contains(&format!("[env: {name}=")), "{name}\n{help}");
            let is_secret = ["_AUTH", "_KEY"].iter().any(|end| name.ends_with(end));
            assert!(!is_secret || value.starts_with("/etc/hearth/"), "{name}");
        }
    }
}
