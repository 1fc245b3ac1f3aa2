//! Why a container does not start, in the words that callers parse.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::bundle::Bundle;

crate::tests!(
    programs,
    working_directory,
    exec_format,
    bad_specs,
    hooks_that_fail,
    tiny_memory
);

fn refusal(bundle: &Bundle) -> String {
    bundle.run().unwrap_err().message
}

fn programs() {
    let bundle = Bundle::new(&["foo"]);
    std::fs::write(bundle.rootfs().join("plain"), "x").unwrap();
    for (program, words) in [
        ("foo", r#"exec: "foo": executable file not found in $PATH"#),
        (
            "/foo",
            r#"exec: "/foo": stat /foo: no such file or directory"#,
        ),
        ("/plain", r#"exec: "/plain": permission denied"#),
        ("/tmp", r#"exec: "/tmp": is a directory"#),
        ("", r#"exec: "": executable file not found in $PATH"#),
    ] {
        let bundle = Bundle::new(&[program]);
        std::fs::write(bundle.rootfs().join("plain"), "x").unwrap();
        let message = refusal(&bundle);
        assert_eq!(
            message,
            format!("unable to start container process: {words}")
        );
        if program != "/tmp" {
            let by_runc = bundle.run_by_runc().out;
            let escaped = by_runc.replace("\\\"", "\"");
            assert!(escaped.contains(words), "runc says {by_runc}");
        }
    }
}

fn working_directory() {
    let bundle = Bundle::new(&["true"]).with(|s| s["process"]["cwd"] = json!("/etc/passwd"));
    assert_eq!(
        refusal(&bundle),
        "unable to start container process: chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory"
    );
    // Out of the container by a descriptor of the shim's (CVE-2024-21626).
    for number in 3..16 {
        let bundle = Bundle::shell("pwd")
            .with(|s| s["process"]["cwd"] = json!(format!("/proc/self/fd/{number}")));
        assert!(bundle.run().is_err(), "{number}");
    }
}

fn exec_format() {
    let bundle = Bundle::new(&["/script"]);
    let path = bundle.rootfs().join("script");
    std::fs::write(&path, "#!/no/interpreter\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        refusal(&bundle),
        "unable to start container process: exec /script: no such file or directory"
    );
    std::fs::write(&path, "\0\0\0\0").unwrap();
    assert_eq!(
        refusal(&bundle),
        "unable to start container process: exec /script: exec format error"
    );
}

fn bad_specs() {
    type Change = Box<dyn FnOnce(&mut serde_json::Value)>;
    let cases: Vec<(&str, Change)> = vec![
        (
            "is not supported",
            Box::new(|s| s["ociVersion"] = json!("2.0.0")),
        ),
        (
            "no linux section",
            Box::new(|s| drop(s.as_object_mut().unwrap().remove("linux"))),
        ),
        (
            "not below the root",
            Box::new(|s| s["linux"]["cgroupsPath"] = json!("/../x")),
        ),
        (
            "inside /proc",
            Box::new(|s| {
                s["mounts"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs"}))
            }),
        ),
        (
            "stat /nowhere: no such file or directory",
            Box::new(|s| {
                s["mounts"].as_array_mut().unwrap().push(json!({"destination": "/x", "type": "bind", "source": "/nowhere", "options": ["bind"]}))
            }),
        ),
        (
            "no such device",
            Box::new(|s| {
                s["mounts"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"destination": "/x", "type": "nofs", "source": "x"}))
            }),
        ),
        (
            "not in a separate kernel namespace",
            Box::new(|s| s["linux"]["sysctl"] = json!({"vm.swappiness": "1"})),
        ),
        (
            "failed to write",
            Box::new(|s| s["linux"]["resources"]["cpu"] = json!({"cpus": "5000"})),
        ),
        (
            "must not be empty",
            Box::new(|s| s["process"]["args"] = json!([])),
        ),
    ];
    for (words, change) in cases {
        let bundle = Bundle::new(&["true"]).with(change);
        let message = refusal(&bundle);
        assert!(message.contains(words), "{message}");
        assert!(
            !bundle.path().join("state").join(&bundle.id).exists(),
            "{words}"
        );
    }
}

fn hooks_that_fail() {
    for name in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
    ] {
        let bundle = Bundle::new(&["true"]).with(|s| {
            s["hooks"][name] =
                json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}]);
        });
        let message = refusal(&bundle);
        assert!(
            message.contains(name) && message.contains("because"),
            "{message}"
        );
        assert!(!bundle.cgroup("memory").exists());
    }
    let slow = Bundle::new(&["true"]).with(|s| {
        s["hooks"]["createRuntime"] =
            json!([{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]);
    });
    assert!(refusal(&slow).contains("timeout"));
}

fn tiny_memory() {
    let bundle =
        Bundle::new(&["true"]).with(|s| s["linux"]["resources"]["memory"] = json!({"limit": 4096}));
    let message = refusal(&bundle);
    assert!(
        message.contains("memory limit too low") || message.contains("memory"),
        "{message}"
    );
    assert!(!bundle.cgroup("memory").exists());
}
