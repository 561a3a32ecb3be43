//! Certificates of a cluster under test: an authority and what it issued, in files, all of which can be replaced.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use quorate_rpc::tls::{Authority, Names, Role, Security, Subject, TlsFiles};

#[derive(Debug)]
pub struct Certificates {
    folder: tempfile::TempDir,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The last one issues.
    authorities: Vec<Authority>,
    issued: Vec<(String, Role)>,
}

impl Certificates {
    /// # Panics
    /// No key can be made.
    #[allow(clippy::new_without_default, reason = "makes a folder and a key")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State { authorities: vec![authority(1)], issued: Vec::new() };
        let made = Self { folder, state: Mutex::new(state) };
        made.write_authorities(&made.state());
        made
    }

    /// Those of `name`, issued at its first mention. Good for 127.0.0.1.
    ///
    /// # Panics
    /// They cannot be written.
    pub fn files(&self, name: &str, role: Role) -> TlsFiles {
        let mut state = self.state();
        if !state.issued.iter().any(|(known, _)| known == name) {
            state.issued.push((name.to_owned(), role));
            self.issue(&state, name, role);
        }
        TlsFiles {
            ca_file: self.folder.path().join("ca.crt"),
            cert_file: self.folder.path().join(format!("{name}.crt")),
            key_file: self.folder.path().join(format!("{name}.key")),
        }
    }

    /// # Panics
    /// As [`Certificates::files`].
    pub fn security(&self, name: &str, role: Role) -> Security {
        Security::mutual(self.files(name, role).named(Names::TLS)).expect("good files")
    }

    /// The first step to another authority: it is believed beside the old one.
    ///
    /// # Panics
    /// As [`Certificates::files`].
    pub fn add_authority(&self) {
        let mut state = self.state();
        let number = state.authorities.len() + 1;
        state.authorities.push(authority(number));
        self.write_authorities(&state);
    }

    /// The second step: all have certificates of the new one.
    ///
    /// # Panics
    /// As [`Certificates::files`].
    pub fn issue_again(&self) {
        let state = self.state();
        for (name, role) in &state.issued {
            self.issue(&state, name, *role);
        }
    }

    /// The last step: only the new one is believed.
    ///
    /// # Panics
    /// As [`Certificates::files`].
    pub fn drop_old_authorities(&self) {
        let mut state = self.state();
        let keep = state.authorities.len() - 1;
        state.authorities.drain(..keep);
        self.write_authorities(&state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic elsewhere")
    }

    fn write_authorities(&self, state: &State) {
        let all: String = state.authorities.iter().map(Authority::certificate).collect();
        write(&self.folder.path().join("ca.crt"), &all);
    }

    fn issue(&self, state: &State, name: &str, role: Role) {
        let hosts = vec!["127.0.0.1".to_owned()];
        let subject = Subject { name: name.to_owned(), role, hosts, days: 1 };
        let issuer = state.authorities.last().expect("an authority");
        let issued = issuer.issue(&subject).expect("a certificate");
        write(&self.folder.path().join(format!("{name}.crt")), &issued.certificate);
        write(&self.folder.path().join(format!("{name}.key")), &issued.key);
    }
}

fn authority(number: usize) -> Authority {
    Authority::new(&format!("testkit {number}")).expect("a key")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a folder that can be written to");
}
