//! New, joined and shared namespaces; sysctls; users mapped to others.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Bundle, process, wait, wait_for};

crate::tests!(
    new_ones_differ,
    shared_with_the_host,
    joined_by_path,
    sysctls,
    users,
    users_exec,
    time,
    container_network
);

const NAMES: [(&str, &str); 6] = [
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
];

fn namespaces(spec: &mut Value) -> &mut Vec<Value> {
    spec["linux"]["namespaces"].as_array_mut().unwrap()
}

fn new_ones_differ() {
    let bundle =
        Bundle::shell("for n in mnt net pid ipc uts cgroup; do readlink /proc/self/ns/$n; done");
    let out = bundle.run().unwrap().out;
    for (_, file) in NAMES {
        let own = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        assert!(
            out.contains(&format!("{file}:[")) && !out.contains(own.to_str().unwrap()),
            "{file} {out}"
        );
    }
}

fn shared_with_the_host() {
    for kind in ["network", "ipc", "uts", "cgroup", "pid"] {
        let file = NAMES.iter().find(|(k, _)| *k == kind).unwrap().1;
        let bundle = Bundle::shell(&format!("readlink /proc/self/ns/{file}")).with(|s| {
            namespaces(s).retain(|n| n["type"] != kind);
            if kind == "uts" {
                s["hostname"] = json!("");
            }
        });
        let own = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        assert_eq!(bundle.run().unwrap().out.trim(), own.to_str().unwrap());
    }
}

fn joined_by_path() {
    let first = Bundle::new(&["sleep", "100"]);
    let runtime = first.runtime();
    let (created, _out) = first.create(&runtime).unwrap();
    wait(runtime.start(&first.id)).unwrap();
    let pid = created.pid;
    let line = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done; hostname; ps | grep -c 'sleep 100'";
    let second = Bundle::shell(line).with(|s| {
        s["hostname"] = json!("");
        for namespace in namespaces(s) {
            let kind = namespace["type"].as_str().unwrap().to_owned();
            let file = NAMES.iter().find(|(k, _)| *k == kind).unwrap().1;
            if matches!(file, "net" | "pid" | "ipc" | "uts") {
                namespace["path"] = json!(format!("/proc/{pid}/ns/{file}"));
            }
        }
    });
    let out = second.run().unwrap().out;
    for file in ["net", "pid", "ipc", "uts"] {
        let of_first = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert!(out.contains(of_first.to_str().unwrap()), "{file} {out}");
    }
    assert!(out.contains("box\n"), "{out}");
    wait(runtime.delete(&first.id, true)).unwrap();
    wait_for(pid);
}

fn container_network() {
    let mut holder = Command::new("unshare")
        .args(["-n", "sleep", "100"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    crate::bundle::until("it has its own network", || {
        std::fs::read_link(&path).is_ok_and(|n| n != own)
    });
    let bundle = Bundle::shell("readlink /proc/self/ns/net").with(|s| {
        for namespace in namespaces(s).iter_mut().filter(|n| n["type"] == "network") {
            namespace["path"] = json!(path);
        }
    });
    assert_eq!(
        bundle.run().unwrap().out.trim(),
        std::fs::read_link(&path).unwrap().to_str().unwrap()
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
}

fn sysctls() {
    let line = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    let bundle = Bundle::shell(line).with(|s| {
        s["linux"]["sysctl"] =
            json!({"net.ipv4.ip_unprivileged_port_start": "77", "kernel.shm_rmid_forced": "1"});
    });
    assert_eq!(bundle.run().unwrap().out, "77\n1\n");
}

fn mapped(spec: &mut Value) {
    namespaces(spec).push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
}

/// Lets the mapped root own the root file system and walk to it.
fn give_away(bundle: &Bundle) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(bundle.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let status = Command::new("chown")
        .args(["-R", "100000:100000"])
        .arg(bundle.rootfs())
        .status()
        .unwrap();
    assert!(status.success());
}

fn users() {
    let secret = tempfile::tempdir().unwrap();
    std::fs::create_dir(secret.path().join("in")).unwrap();
    std::fs::write(secret.path().join("in/file"), "reached\n").unwrap();
    let line = "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox; echo x > /dev/null && echo null; touch /made && stat -c %u /made; hostname; cat /bound/file; (echo 5 > /proc/sys/net/core/somaxconn) 2>/dev/null || echo ro";
    let bundle = Bundle::shell(line).with(|s| {
        mapped(s);
        s["mounts"].as_array_mut().unwrap().push(json!({"destination": "/bound", "type": "bind", "source": secret.path().join("in"), "options": ["rbind", "ro"]}));
    });
    give_away(&bundle);
    let outcome = bundle.run().unwrap();
    let words: Vec<&str> = outcome.out.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "0", "0", "100000", "65536", "0", "null", "0", "box", "reached", "ro"
        ],
        "{}",
        outcome.out
    );
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        std::fs::metadata(bundle.rootfs().join("made"))
            .unwrap()
            .uid(),
        100_000
    );
}

fn users_exec() {
    let bundle = Bundle::new(&["sleep", "100"]).with(mapped);
    give_away(&bundle);
    let runtime = bundle.runtime();
    let (created, _out) = bundle.create(&runtime).unwrap();
    wait(runtime.start(&bundle.id)).unwrap();
    let line = "id -u; readlink /proc/self/ns/user";
    let out = bundle
        .exec(&runtime, &process(&["sh", "-c", line]))
        .unwrap()
        .out;
    let of_init = std::fs::read_link(format!("/proc/{}/ns/user", created.pid)).unwrap();
    assert_eq!(out, format!("0\n{}\n", of_init.display()));

    // A second container in the same user and network namespaces, as pods have.
    let second = Bundle::shell("id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/net")
        .with(|s| {
            mapped(s);
            for namespace in namespaces(s)
                .iter_mut()
                .filter(|n| n["type"] == "user" || n["type"] == "network")
            {
                let file = if namespace["type"] == "user" {
                    "user"
                } else {
                    "net"
                };
                namespace["path"] = json!(format!("/proc/{}/ns/{file}", created.pid));
            }
            s["linux"].as_object_mut().unwrap().remove("uidMappings");
            s["linux"].as_object_mut().unwrap().remove("gidMappings");
        });
    give_away(&second);
    let out = second.run().unwrap().out;
    assert!(
        out.starts_with(&format!("0\n{}\n", of_init.display())),
        "{out}"
    );
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(created.pid);
}

fn time() {
    let bundle = Bundle::shell("cat /proc/uptime").with(|s| {
        namespaces(s).push(json!({"type": "time"}));
        s["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}});
    });
    let out = bundle.run().unwrap().out;
    let uptime: f64 = out.split_whitespace().next().unwrap().parse().unwrap();
    assert!(uptime > 1_000_000.0, "{out}");
}
