//! Users, groups, capabilities, no_new_privs, seccomp.

use serde_json::json;

use crate::bundle::Bundle;

crate::tests!(
    users_and_groups,
    capabilities,
    no_new_privileges,
    docker_profile,
    seccomp_without_new_privileges,
    stdio_belongs_to_the_user,
    umask,
    ambient
);

fn users_and_groups() {
    let bundle = Bundle::shell("id; grep Groups /proc/self/status; echo $HOME").with(|s| {
        s["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 6, 7]});
    });
    let outcome = bundle.run().unwrap();
    assert_eq!(outcome.out, bundle.run_by_runc().out);
    assert!(
        outcome.out.contains("uid=1000(user)") && outcome.out.contains("/home/user"),
        "{}",
        outcome.out
    );
}

fn capabilities() {
    for uid in [0, 1000] {
        let bundle = Bundle::shell("grep Cap /proc/self/status").with(|s| {
            s["process"]["user"] = json!({"uid": uid, "gid": uid});
            s["process"]["capabilities"]["inheritable"] = json!(["CAP_CHOWN"]);
        });
        let outcome = bundle.run().unwrap();
        assert_eq!(outcome.out, bundle.run_by_runc().out, "uid {uid}");
    }
    let none = Bundle::shell("grep -E 'Cap(Prm|Bnd)' /proc/self/status").with(|s| {
        s["process"]["capabilities"] = json!({"bounding": [], "effective": [], "permitted": []});
    });
    assert_eq!(
        none.run().unwrap().out,
        "CapPrm:\t0000000000000000\nCapBnd:\t0000000000000000\n"
    );
    // All, of which this machine may not have all.
    let all: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    let bundle = Bundle::shell("grep CapEff /proc/self/status").with(|s| {
        s["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    });
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|l| l.starts_with("CapEff")).unwrap();
    assert_eq!(bundle.run().unwrap().out.trim(), own);
}

fn ambient() {
    let bundle = Bundle::shell("grep -E 'Cap(Eff|Amb)' /proc/self/status").with(|s| {
        s["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let set = json!(["CAP_NET_BIND_SERVICE"]);
        s["process"]["capabilities"] = json!({"bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set});
    });
    assert_eq!(
        bundle.run().unwrap().out,
        "CapEff:\t0000000000000400\nCapAmb:\t0000000000000400\n"
    );
}

fn no_new_privileges() {
    for wanted in [true, false] {
        let bundle = Bundle::shell("grep NoNewPrivs /proc/self/status").with(|s| {
            s["process"]["noNewPrivileges"] = json!(wanted);
        });
        assert_eq!(
            bundle.run().unwrap().out,
            format!("NoNewPrivs:\t{}\n", u8::from(wanted))
        );
    }
}

fn profile() -> serde_json::Value {
    let spec: serde_json::Value =
        serde_json::from_str(include_str!("../../examples/docker.json")).unwrap();
    spec["linux"]["seccomp"].clone()
}

fn docker_profile() {
    // Allowed things work, a call that is not in the profile does not, and both agree with libseccomp.
    let line = "grep -E '^Seccomp:' /proc/self/status; ls / | wc -l; mount -t tmpfs x /tmp; sleep 0.01; unshare -U true";
    let bundle = Bundle::shell(line).with(|s| s["linux"]["seccomp"] = profile());
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/unshare")).unwrap();
    let outcome = bundle.run().unwrap();
    assert_eq!(outcome, bundle.run_by_runc());
    assert!(
        outcome.out.contains("Seccomp:\t2") && outcome.out.contains("not permitted"),
        "{}",
        outcome.out
    );
}

fn seccomp_without_new_privileges() {
    for no_new_privileges in [true, false] {
        let bundle = Bundle::shell("grep -E 'NoNew|Seccomp:' /proc/self/status; mkdir /x || echo denied").with(|s| {
            s["process"]["noNewPrivileges"] = json!(no_new_privileges);
            s["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 27}]});
        });
        let out = bundle.run().unwrap().out;
        assert!(
            out.contains("File too large") && out.contains("Seccomp:\t2"),
            "{out}"
        );
    }
}

fn stdio_belongs_to_the_user() {
    let bundle = Bundle::shell("echo again > /proc/self/fd/1; echo err > /dev/stderr").with(|s| {
        s["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    assert_eq!(bundle.run().unwrap().out, "again\nerr\n");
}

fn umask() {
    let bundle = Bundle::shell("umask").with(|s| s["process"]["user"]["umask"] = json!(0o77));
    assert_eq!(bundle.run().unwrap().out, "0077\n");
}
