//! The root, mounts, devices, masks.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::bundle::Bundle;

crate::tests!(
    same_view_as_runc,
    read_only_root,
    binds,
    bind_options,
    targets_through_symlinks,
    symlinked_proc_is_refused,
    tmpfs_copy_up,
    devices,
    masks_and_read_only_paths,
    propagation,
    hooks_see_the_container,
);

fn mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn same_view_as_runc() {
    let lines = [
        // Without the ids, devices and random parts: target, options, type.
        "cat /proc/self/mountinfo | while read a b c d e f g; do case $e in /sys/fs/cgroup*|/proc/keys|/proc/timer_list) ;; *) echo $e $f;; esac; done | sort",
        "ls -l /dev | while read a b c d e f g h i j k l; do echo $a $c $d $e $f; done | sort; ls /dev | sort",
        "ls -ld /dev/shm /dev/pts /dev/mqueue /proc /sys /dev | while read a b c d rest; do echo $a $c $d; done",
        "ls /sys/fs/cgroup | grep -v unified; for l in stdin fd ptmx core; do readlink /dev/$l; done",
        "ls /proc/self/fd | wc -l",
        "cat /proc/self/cgroup",
        "id; echo $HOME; hostname; umask; cat /proc/self/oom_score_adj",
        "ip link | grep -c UP",
        "cat /proc/self/limits",
    ];
    for line in lines {
        let bundle = Bundle::shell(line);
        let (ours, theirs) = (bundle.run().unwrap(), bundle.run_by_runc());
        assert_eq!(ours.out, theirs.out, "{line}");
    }
}

fn read_only_root() {
    let bundle = Bundle::shell("touch /x; touch /tmp/x; touch /dev/shm/x && echo shm").with(|s| {
        s["root"]["readonly"] = json!(true);
    });
    let out = bundle.run().unwrap().out;
    assert!(
        out.contains("/x: Read-only file system") && out.contains("shm"),
        "{out}"
    );
    assert!(std::fs::write(bundle.rootfs().join("still"), "writable outside").is_ok());
}

fn binds() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "text").unwrap();
    std::fs::create_dir(outside.path().join("sub")).unwrap();
    let bundle = Bundle::shell("cat /deep/new/file; ls /dir; echo more > /dir/made; cat /bin/relative").with(|s| {
        let from = outside.path().join("file");
        mount(s, json!({"destination": "/deep/new/file", "type": "bind", "source": from, "options": ["bind"]}));
        mount(s, json!({"destination": "/dir", "type": "none", "source": outside.path(), "options": ["rbind", "rprivate"]}));
        mount(s, json!({"destination": "/bin/relative", "source": "side", "options": ["bind", "ro"]}));
    });
    std::fs::write(bundle.path().join("side"), "beside").unwrap();
    assert_eq!(bundle.run().unwrap().out, "textfile\nsub\nbeside");
    assert_eq!(
        std::fs::read_to_string(outside.path().join("made")).unwrap(),
        "more\n"
    );
}

fn bind_options() {
    let outside = tempfile::tempdir().unwrap();
    let line = "touch /ro/x; touch /rw/x && echo written; grep -E ' /(ro|rw) ' /proc/self/mountinfo | while read a b c d e f g; do echo $e $f; done";
    let bundle = Bundle::shell(line).with(|s| {
        for (place, options) in [("/ro", json!(["rbind", "ro", "nosuid", "nodev"])), ("/rw", json!(["rbind", "rw", "noexec"]))] {
            mount(s, json!({"destination": place, "type": "bind", "source": outside.path(), "options": options}));
        }
    });
    let out = bundle.run().unwrap().out;
    assert!(
        out.contains("Read-only file system") && out.contains("written"),
        "{out}"
    );
    assert!(
        out.contains("/ro ro,nosuid,nodev,relatime") && out.contains("/rw rw,noexec,relatime"),
        "{out}"
    );
}

fn targets_through_symlinks() {
    let outside = tempfile::tempdir().unwrap();
    let bundle = Bundle::shell("ls /real; ls /made").with(|s| {
        for place in ["/link/in", "/dangling"] {
            mount(
                s,
                json!({"destination": place, "type": "tmpfs", "source": "tmpfs"}),
            );
        }
    });
    symlink("/../../../../real", bundle.rootfs().join("link")).unwrap();
    symlink(
        outside.path().join("../../../../../made"),
        bundle.rootfs().join("dangling"),
    )
    .unwrap();
    let out = bundle.run().unwrap().out;
    assert_eq!(out.lines().next(), Some("in"), "{out}");
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
    assert!(!std::path::Path::new("/real").exists() && !std::path::Path::new("/made").exists());
}

fn symlinked_proc_is_refused() {
    let bundle = Bundle::new(&["true"]);
    std::fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    symlink("/tmp", bundle.rootfs().join("proc")).unwrap();
    let message = bundle.run().unwrap_err().message;
    assert!(
        message.contains("must be mounted on ordinary directory"),
        "{message}"
    );
}

fn tmpfs_copy_up() {
    let bundle = Bundle::shell("cat /data/sub/file; readlink /data/link; stat -c %a /data/sub; stat -c %a /data; touch /data/x").with(|s| {
        mount(s, json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]}));
    });
    let data = bundle.rootfs().join("data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("sub/file"), "copied\n").unwrap();
    symlink("/etc/shadow", data.join("link")).unwrap();
    let out = bundle.run().unwrap().out;
    assert!(out.starts_with("copied\n/etc/shadow\n755\n755\n"), "{out}");
    assert!(out.contains("Read-only"), "{out}");
}

fn devices() {
    let line = "stat -c '%n %t:%T %a %u %g' /dev/null /dev/zero /dev/mine /dev/deep/fifo; echo x > /dev/null && echo ok; head -c 3 /dev/zero | wc -c; dd if=/dev/mine count=1 2>&1 | head -1; mknod /tmp/sda b 8 0 && dd if=/tmp/sda of=/dev/null count=1 2>&1 | grep -i permitted";
    let bundle = Bundle::shell(line).with(|s| {
        s["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 5, "gid": 6},
            {"path": "/dev/deep/fifo", "type": "p", "major": 0, "minor": 0, "fileMode": 0o600}
        ]);
    });
    let out = bundle.run().unwrap().out;
    assert!(
        out.contains("/dev/null 1:3 666 0 0") && out.contains("/dev/mine a:c8 640 5 6"),
        "{out}"
    );
    assert!(
        out.contains("/dev/deep/fifo 0:0 600") && out.contains("ok\n3\n"),
        "{out}"
    );
    assert!(
        out.contains("can't open '/dev/mine': Operation not permitted"),
        "{out}"
    );
    assert!(
        out.contains("can't open '/tmp/sda': Operation not permitted"),
        "{out}"
    );
    let wrong = Bundle::new(&["true"]).with(|s| {
        s["linux"]["devices"] =
            json!([{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]);
    });
    assert!(wrong.run().is_err());
}

fn masks_and_read_only_paths() {
    let line = "exec 2>&1; cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; stat -c %F /proc/keys; echo 1 > /proc/sys/vm/overcommit_memory; touch /proc/sysrq-trigger 2>&1; ls /masked | wc -l; cat /hidden | wc -c";
    let bundle = Bundle::shell(line).with(|s| {
        let paths = s["linux"]["maskedPaths"].as_array_mut().unwrap();
        paths.extend([json!("/masked"), json!("/hidden"), json!("/not/there")]);
    });
    std::fs::create_dir(bundle.rootfs().join("masked")).unwrap();
    std::fs::write(bundle.rootfs().join("masked/secret"), "x").unwrap();
    std::fs::write(bundle.rootfs().join("hidden"), "secret").unwrap();
    let (ours, theirs) = (bundle.run().unwrap(), bundle.run_by_runc());
    assert_eq!(ours.out, theirs.out);
    assert!(
        ours.out.contains("0\ncharacter special file\n") && ours.out.ends_with("0\n0\n"),
        "{}",
        ours.out
    );
}

fn propagation() {
    for (given, shown) in [
        ("", ""),
        ("rslave", ""),
        ("rprivate", ""),
        ("rshared", "shared"),
    ] {
        let bundle = Bundle::shell("grep ' / / ' /proc/self/mountinfo | head -1").with(|s| {
            if !given.is_empty() {
                s["linux"]["rootfsPropagation"] = json!(given);
            }
        });
        let line =
            "while read a b c d e f g; do test $e = / && echo $g; done < /proc/self/mountinfo";
        let bundle = bundle.with(|s| s["process"]["args"][2] = json!(line));
        let ours = bundle.run().unwrap().out;
        assert_eq!(
            ours.contains("shared"),
            shown == "shared",
            "{given}: {ours}"
        );
    }
}

fn hooks_see_the_container() {
    let bundle = Bundle::shell("cat /made-by-hook");
    let log = bundle.path().join("log");
    let hook = |what: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {what} $X $(cat) >> {}", log.display())], "env": ["X=y", "PATH=/bin:/usr/bin"]}]);
    let made = bundle.rootfs().join("made-by-hook");
    let bundle = bundle.with(|s| {
        s["annotations"] = json!({"a": "b"});
        s["hooks"]["prestart"] = hook("prestart");
        s["hooks"]["createRuntime"] = hook("createRuntime");
        s["hooks"]["poststart"] = hook("poststart");
        s["hooks"]["poststop"] = hook("poststop");
        let line = format!("mount | grep -q {}/dev/shm && echo yes > {}", made.parent().unwrap().display(), made.display());
        s["hooks"]["createContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin:/usr/bin"]}]);
        s["hooks"]["startContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo inside >> /made-by-hook"], "env": ["PATH=/bin"]}]);
    });
    assert_eq!(bundle.run().unwrap().out, "yes\ninside\n");
    let log = std::fs::read_to_string(log).unwrap();
    let names: Vec<&str> = log.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(
        names,
        ["prestart", "createRuntime", "poststart", "poststop"]
    );
    let state: Value = serde_json::from_str(
        log.lines()
            .next()
            .unwrap()
            .trim_start_matches("prestart y "),
    )
    .unwrap();
    assert_eq!(
        (state["id"].as_str(), state["annotations"]["a"].as_str()),
        (Some(bundle.id.as_str()), Some("b"))
    );
    assert!(
        state["pid"].as_i64().unwrap() > 1 && log.contains(r#""status":"stopped""#),
        "{log}"
    );
}
