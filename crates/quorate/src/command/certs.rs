//! `quorate certs`: the certificates of a small deployment, without another tool.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use quorate_rpc::tls::{Authority, CERTIFICATE_DAYS, Role, Shown, Subject};
use serde::Serialize;

use crate::command::cert_files::{CertFiles, absolute};
use crate::output::{OutputOptions, table};

/// Make and show the certificates of a deployment
///
/// Every node, gateway and operator shows one; its CN says who that is, its O what they may do. docs/operations.md,
/// "TLS", has the whole story.
#[derive(Debug, Args)]
pub struct Certs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Init(Init),
    Issue(Issue),
    Show(Show),
}

/// Make an authority, and certificates of it
///
/// Example:
///   quorate certs init --dir certs --node 1=10.0.0.1 --node 2=10.0.0.2 --node 3=10.0.0.3,node-3.internal \
///     --gateway gateway-1 --operator alice=admin --operator dashboard=read
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
struct Init {
    #[command(flatten)]
    holders: Holders,
    /// Name of the authority: one cluster, one authority
    #[arg(long, default_value = "quorate", value_name = "NAME")]
    name: String,
}

/// Make certificates of the authority that is in the folder
///
/// Example: quorate certs issue --dir certs --gateway gateway-2
#[derive(Debug, Args)]
struct Issue {
    #[command(flatten)]
    holders: Holders,
    /// Replace what is there: who uses the files reads them again by themselves
    #[arg(long)]
    replace: bool,
}

/// Say whose certificate it is, what they may do, and until when it is valid
#[derive(Debug, Args)]
struct Show {
    /// In PEM
    file: PathBuf,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Debug, Args)]
struct Holders {
    /// Where ca.crt, ca.key and, for each holder, NAME.crt and NAME.key are
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A node, and the names and addresses under which it is reached
    #[arg(long = "node", value_name = "ID=HOST[,HOST…]", value_parser = node)]
    nodes: Vec<Holder>,
    /// A gateway; with hosts, its certificate also serves applications
    #[arg(long = "gateway", value_name = "NAME[=HOST,…]", value_parser = gateway)]
    gateways: Vec<Holder>,
    /// A person or a program that uses the command line: read, operate or admin
    #[arg(long = "operator", value_name = "NAME=ROLE", value_parser = operator)]
    operators: Vec<Holder>,
    /// How long the certificates are valid
    #[arg(long, default_value_t = CERTIFICATE_DAYS, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    name: String,
    role: Role,
    hosts: Vec<String>,
}

fn node(text: &str) -> Result<Holder, String> {
    let (id, hosts) = text.split_once('=').ok_or("wanted: ID=HOST[,HOST…], as in 1=10.0.0.1")?;
    let id: u64 = id.parse().map_err(|_| format!("`{id}` is no node's number"))?;
    Ok(Holder { name: format!("node-{id}"), role: Role::Node, hosts: hosts_of(hosts)? })
}

fn gateway(text: &str) -> Result<Holder, String> {
    let (name, hosts) = match text.split_once('=') {
        Some((name, hosts)) => (name, hosts_of(hosts)?),
        None => (text, Vec::new()),
    };
    Ok(Holder { name: file_name(name)?, role: Role::Gateway, hosts })
}

fn operator(text: &str) -> Result<Holder, String> {
    let (name, role) = text.split_once('=').ok_or("wanted: NAME=ROLE, as in alice=admin")?;
    match Role::named(role) {
        Some(role @ (Role::Read | Role::Operate | Role::Admin)) => {
            Ok(Holder { name: file_name(name)?, role, hosts: Vec::new() })
        }
        _ => Err(format!("`{role}` is no operator's role; wanted read, operate or admin")),
    }
}

fn hosts_of(text: &str) -> Result<Vec<String>, String> {
    let hosts: Vec<String> = text.split(',').map(|host| host.trim().to_owned()).collect();
    if hosts
        .iter()
        .any(|host| host.is_empty() || (host.contains(':') && host.parse::<std::net::IpAddr>().is_err()))
    {
        return Err(format!("`{text}`: wanted names or addresses, without ports, separated by commas"));
    }
    Ok(hosts)
}

/// The name is the CN and the name of the files.
fn file_name(name: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    let good =
        !name.is_empty() && name.len() <= 64 && !name.starts_with(['.', '-']) && name.bytes().all(plain);
    if !good || name == "ca" {
        return Err(format!("`{name}`: wanted 1 to 64 letters, digits, `-`, `_`, `.` or `@`, and not `ca`"));
    }
    Ok(name.to_owned())
}

impl Certs {
    /// # Errors
    /// What the folder holds cannot be used, or would be overwritten.
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Init(init) => init.run(),
            What::Issue(issue) => issue.run(),
            What::Show(show) => show.run(),
        }
    }
}

impl Init {
    fn run(self) -> Result<()> {
        let files = CertFiles::new(&self.holders.dir, false);
        let holders = self.holders.all()?;
        let authority = Authority::new(&self.name)?;
        // All or nothing, as far as can be known beforehand.
        files.check_free(holders.iter().map(|holder| holder.name.as_str()).chain(["ca"]))?;
        files.write("ca", authority.certificate(), &authority.key())?;
        self.holders.issue(&authority, &files, &holders)?;
        println!(
            "Whoever has {} can be anybody: keep it off the machines that serve.",
            absolute(&files.key("ca")).display()
        );
        Ok(())
    }
}

impl Issue {
    fn run(self) -> Result<()> {
        let files = CertFiles::new(&self.holders.dir, self.replace);
        let holders = self.holders.all()?;
        if holders.is_empty() {
            bail!("for whom? name a --node, a --gateway or an --operator");
        }
        let read = |path: PathBuf| {
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}; `quorate certs init` makes it", path.display()))
        };
        let authority = Authority::from_pem(&read(files.certificate("ca"))?, &read(files.key("ca"))?)
            .with_context(|| format!("folder {}", self.holders.dir.display()))?;
        files.check_free(holders.iter().map(|holder| holder.name.as_str()))?;
        self.holders.issue(&authority, &files, &holders)
    }
}

impl Holders {
    fn all(&self) -> Result<Vec<Holder>> {
        let all: Vec<Holder> =
            [&self.nodes, &self.gateways, &self.operators].into_iter().flatten().cloned().collect();
        let mut names = BTreeSet::new();
        if let Some(twice) = all.iter().find(|holder| !names.insert(holder.name.as_str())) {
            bail!("{} is named twice", twice.name);
        }
        Ok(all)
    }

    /// Prints what to put where.
    fn issue(&self, authority: &Authority, files: &CertFiles, holders: &[Holder]) -> Result<()> {
        for holder in holders {
            let Holder { name, role, hosts } = holder.clone();
            let subject = Subject { name, role, hosts, days: self.days };
            let issued = authority.issue(&subject).with_context(|| format!("for {}", subject.name))?;
            files.write(&subject.name, &issued.certificate, &issued.key)?;
        }
        for holder in holders {
            println!("{}\n", told(holder, files));
        }
        Ok(())
    }
}

/// What its holder has to do with it.
fn told(holder: &Holder, files: &CertFiles) -> String {
    let Holder { name, role, .. } = holder;
    let paths = [files.certificate("ca"), files.certificate(name), files.key(name)].map(|path| quoted(&path));
    let [ca, cert, key] = paths;
    let section = match role {
        Role::Node => "tls",
        Role::Gateway => "cluster_tls",
        Role::Read | Role::Operate | Role::Admin => {
            return format!(
                "# {name} ({role}), for the command line:\nexport QUORATE_TLS_CA={ca}\nexport QUORATE_TLS_CERT={cert}\nexport QUORATE_TLS_KEY={key}"
            );
        }
    };
    format!(
        "# {name} ({role}), in its config:\n{section}:\n  ca_file: {ca}\n  cert_file: {cert}\n  key_file: {key}"
    )
}

/// As YAML and the shell both read it.
fn quoted(path: &Path) -> String {
    let path = absolute(path).display().to_string();
    let plain = |char: char| char.is_alphanumeric() || "/._-@+".contains(char);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    roles: Vec<&'static str>,
    hosts: Vec<String>,
    issuer: String,
    not_before: String,
    not_after: String,
    expired: bool,
}

impl Show {
    fn run(self) -> Result<()> {
        let pem =
            std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let shown =
            Shown::all(&pem).map_err(anyhow::Error::msg).with_context(|| self.file.display().to_string())?;
        let rows: Vec<Row> = shown.into_iter().map(Row::from).collect();
        self.output.print(&rows, || {
            let mut table = table(&["NAME", "ROLES", "HOSTS", "ISSUER", "VALID FROM", "VALID UNTIL"]);
            for row in &rows {
                let until = format!("{}{}", row.not_after, if row.expired { " (expired)" } else { "" });
                let (roles, hosts) = (row.roles.join(", "), row.hosts.join(", "));
                table.add_row([&row.name, &roles, &hosts, &row.issuer, &row.not_before, &until]);
            }
            table
        })
    }
}

impl From<Shown> for Row {
    fn from(shown: Shown) -> Self {
        let mut roles: Vec<&'static str> = shown.roles.iter().map(|role| role.name()).collect();
        if shown.is_authority {
            roles.push("authority");
        }
        Self {
            name: shown.name,
            roles,
            hosts: shown.hosts,
            issuer: shown.issuer,
            expired: shown.validity.is_over(),
            not_before: shown.validity.not_before,
            not_after: shown.validity.not_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_read_strictly() {
        let made = node("3=10.0.0.3,n3.internal,::1").unwrap();
        assert_eq!(made.name, "node-3");
        assert_eq!(made.hosts, ["10.0.0.3", "n3.internal", "::1"]);
        assert_eq!(gateway("g1").unwrap().hosts, Vec::<String>::new());
        assert_eq!(gateway("g1=llm.internal").unwrap().hosts, ["llm.internal"]);
        assert_eq!(operator("alice@example=operate").unwrap().role, Role::Operate);
        for wrong in ["3", "x=10.0.0.3", "3=", "3=10.0.0.3:7701", "3=a,,b"] {
            assert!(node(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "ca", "../x", "a/b", ".x", "-x", "a b"] {
            assert!(gateway(wrong).is_err(), "{wrong}");
        }
        for wrong in ["alice", "alice=node", "alice=gateway", "alice=root", "=admin"] {
            assert!(operator(wrong).is_err(), "{wrong}");
        }
    }
}
