//! What a run must not leave behind: namespaces, mounts, and processes in those namespaces. All of it carries the number of
//! the process that made it; what a dead one left is removed by the next.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::tool;

const PREFIX: &str = "qj";

/// Short enough for the name of a network interface.
pub fn label(pid: u32, number: u32) -> String {
    format!("{PREFIX}{pid}x{number}")
}

/// The process that made what is called so.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('x')?.0.parse().ok()
}

/// Removes what dead runs left; says what. Those that live are left alone.
pub fn leftovers() -> Vec<String> {
    if !tool::is_root() {
        return Vec::new();
    }
    remove_clocks();
    remove(|pid| !lives(pid))
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// What libfaketime leaves in shared memory of a process that did not end in good order.
pub const CLOCKS: [&str; 2] = ["faketime_shm_", "sem.faketime_sem_"];
pub const SHARED_MEMORY: &str = "/dev/shm";

fn remove_clocks() {
    for file in std::fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if clock_of(&name).is_some_and(|pid| !lives(pid)) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

fn clock_of(name: &str) -> Option<u32> {
    CLOCKS.iter().find_map(|prefix| name.strip_prefix(prefix)?.parse().ok())
}

/// Everything of this process: for a signal, when nobody is left to drop it.
pub fn own() {
    if tool::is_root() {
        remove(|pid| pid == std::process::id());
    }
}

fn remove(of: impl Fn(u32) -> bool) -> Vec<String> {
    let mut removed = Vec::new();
    let mut labels: Vec<String> = namespaces("").into_iter().filter_map(|name| label_of(&name)).collect();
    labels.sort();
    labels.dedup();
    for label in labels.into_iter().filter(|label| maker(label).is_some_and(&of)) {
        remove_network(&label);
        removed.push(format!("network {label}"));
    }
    // Last, when nobody uses them any more.
    for (source, folder) in mounts().into_iter().filter(|(source, _)| maker(source).is_some_and(&of)) {
        let _ = tool::run("umount", &["--lazy", &folder]);
        removed.push(format!("mount {source} on {folder}"));
    }
    removed
}

fn label_of(namespace: &str) -> Option<String> {
    let label = namespace.split_once('-')?.0;
    maker(label).map(|_| label.to_owned())
}

/// Those whose names begin so.
fn namespaces(prefix: &str) -> Vec<String> {
    let listed = tool::run("ip", &["netns", "list"]).unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

/// Kills whoever runs in the namespaces of this label and removes them. What connects them goes with them.
pub fn remove_network(label: &str) {
    // The harness's end: namespaces are gone only some time after they were deleted.
    let _ = tool::run("ip", &["link", "del", label]);
    for namespace in namespaces(&format!("{label}-")) {
        let pids = tool::run("ip", &["netns", "pids", &namespace]).unwrap_or_default();
        // A thread of the harness that delays packets counts as one of the processes there.
        let others = pids.lines().filter_map(|pid| pid.trim().parse::<i32>().ok());
        for pid in others.filter(|pid| u32::try_from(*pid) != Ok(std::process::id())) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = tool::run("ip", &["netns", "del", &namespace]);
    }
}

/// (what is mounted, where), of those that are called after a process.
fn mounts() -> Vec<(String, String)> {
    let text = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    text.lines().filter_map(mount).collect()
}

/// By the folder of the harness that is part of every mount point: `…/qj<pid>x<number>/…`.
fn mount(line: &str) -> Option<(String, String)> {
    let folder = line.split_whitespace().nth(1)?;
    let label = folder.split('/').find(|part| maker(part).is_some())?;
    Some((label.to_owned(), folder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_carries_a_number_is_ours() {
        let long = label(4_194_304, 12);
        assert!(long.len() <= 15, "{long}");
        assert_eq!(maker(&long), Some(4_194_304));
        assert_eq!(label_of("qj77x0-n12"), Some("qj77x0".to_owned()));
        for other in ["qj", "qjx0-n1", "docker0", "qjabcx1-n1", "br-1"] {
            assert_eq!(label_of(other), None, "{other}");
        }
        assert_eq!((clock_of("sem.faketime_sem_968"), clock_of("faketime_shm_x")), (Some(968), None));
        let line = "/dev/loop0 /tmp/run/qj77x0/node-1 ext4 rw 0 0";
        assert_eq!(mount(line), Some(("qj77x0".to_owned(), "/tmp/run/qj77x0/node-1".to_owned())));
        assert_eq!(mount("tmpfs /dev/shm tmpfs rw 0 0"), None);
    }
}
