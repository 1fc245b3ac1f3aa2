//! Volumes, through both command lines, with a real image and a real plugin.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use davit_tests::{Daemon, DaemonBuilder, ImageSpec, Output, Registry, binary, eventually, run};
use serde_json::{Value, json};

/// An image with files below a VOLUME.
fn spec() -> ImageSpec {
    ImageSpec {
        config: json!({"Cmd": ["sh"], "Volumes": {"/data": {}}}),
        files: vec![
            ("data/file".to_owned(), b"from the image".to_vec()),
            ("data/sub/deep".to_owned(), b"deep".to_vec()),
            ("plain/other".to_owned(), b"other".to_vec()),
        ],
        ..Default::default()
    }
}

fn prepared() -> (Daemon, String) {
    with(Daemon::builder())
}

fn with(builder: DaemonBuilder) -> (Daemon, String) {
    made_of(builder, &spec())
}

/// With an image that wants no volumes.
fn plain() -> (Daemon, String) {
    made_of(Daemon::builder(), &ImageSpec::default())
}

fn made_of(builder: DaemonBuilder, spec: &ImageSpec) -> (Daemon, String) {
    let registry = Registry::start();
    let daemon = builder.start();
    let image = daemon.pull_busybox(&registry, "busybox:latest", spec);
    (daemon, image)
}

/// A container of --rm goes a moment after its command has.
fn no_container(daemon: &Daemon) {
    eventually("all containers to be gone", || {
        daemon.davit(&["ps", "-aq"]).ok().is_empty()
    });
}

fn volumes(daemon: &Daemon) -> Vec<String> {
    daemon
        .davit(&["volume", "ls", "-q"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn volume_dir(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.root().join("volumes").join(name)
}

#[track_caller]
fn refused(output: Output, text: &str) {
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains(text), "{output:?}");
}

fn mounts_of(daemon: &Daemon) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = [daemon.root().join("volumes"), daemon.state().join("mounts")];
    table
        .lines()
        .filter(|line| {
            below
                .iter()
                .any(|path| line.contains(path.to_str().unwrap()))
        })
        .count()
}

#[test]
fn the_life_of_a_volume_in_docker() {
    let (daemon, image) = plain();
    assert_eq!(
        daemon
            .docker(&["volume", "create", "--label", "a=b", "vol"])
            .ok(),
        "vol"
    );
    assert_eq!(daemon.docker(&["volume", "create", "vol"]).ok(), "vol");
    let inspect = daemon.docker(&["volume", "inspect", "vol"]).ok();
    let inspect: Value = serde_json::from_str(&inspect).unwrap();
    assert_eq!(inspect[0]["Driver"], "local");
    assert_eq!(inspect[0]["Labels"], json!({"a": "b"}));
    assert_eq!(inspect[0]["Scope"], "local");
    let data = volume_dir(&daemon, "vol").join("_data");
    assert_eq!(inspect[0]["Mountpoint"], data.to_str().unwrap());
    daemon
        .docker(&[
            "run",
            "--rm",
            "-v",
            "vol:/x",
            &image,
            "sh",
            "-c",
            "echo kept >/x/f",
        ])
        .ok();
    assert_eq!(fs::read_to_string(data.join("f")).unwrap(), "kept\n");
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "-v", "vol:/x", &image, "cat", "/x/f"])
            .ok(),
        "kept"
    );
    let read_only = daemon.docker(&["run", "--rm", "-v", "vol:/x:ro", &image, "touch", "/x/g"]);
    refused(read_only, "Read-only file system");
    no_container(&daemon);

    let id = daemon
        .docker(&["create", "--name", "c", "-v", "vol:/x", &image, "true"])
        .ok();
    let used = daemon.docker(&["volume", "rm", "vol"]);
    refused(used, &format!("remove vol: volume is in use - [{id}]"));
    assert_eq!(
        daemon
            .docker(&["ps", "-aq", "--no-trunc", "--filter", "volume=vol"])
            .ok(),
        id
    );
    assert_eq!(
        daemon
            .docker(&["volume", "ls", "-q", "-f", "dangling=true"])
            .ok(),
        ""
    );
    daemon.docker(&["rm", "c"]).ok();
    assert_eq!(
        daemon
            .docker(&["volume", "ls", "-q", "-f", "dangling=true", "-f", "label=a"])
            .ok(),
        "vol"
    );
    assert_eq!(
        daemon
            .docker(&[
                "volume",
                "ls",
                "--format",
                "{{.Driver}} {{.Name}}",
                "-f",
                "name=v"
            ])
            .ok(),
        "local vol"
    );
    let usage = daemon
        .docker(&["system", "df", "-v", "--format", "{{json .Volumes}}"])
        .ok();
    assert!(usage.contains("\"Name\":\"vol\""), "{usage}");
    assert_eq!(daemon.docker(&["volume", "rm", "vol"]).ok(), "vol");
    assert!(!volume_dir(&daemon, "vol").exists());
    refused(
        daemon.docker(&["volume", "rm", "vol"]),
        "get vol: no such volume",
    );
    refused(
        daemon.docker(&["volume", "inspect", "vol"]),
        "get vol: no such volume",
    );
    daemon.docker(&["volume", "rm", "-f", "vol"]).ok();
    refused(
        daemon.docker(&["volume", "create", "../vol"]),
        "includes invalid characters for a local volume name",
    );
    refused(
        daemon.docker(&["volume", "create", "-d", "nope", "wol"]),
        "plugin \"nope\" not found",
    );
    refused(
        daemon.docker(&["volume", "create", "-o", "foo=bar", "wol"]),
        "invalid option: \"foo\"",
    );
    assert!(volumes(&daemon).is_empty());
}

#[test]
fn the_life_of_a_volume_in_davit() {
    let (daemon, image) = plain();
    assert_eq!(
        daemon
            .davit(&["volume", "create", "--label", "a=b", "vol"])
            .ok(),
        "vol"
    );
    let again = daemon.davit(&["volume", "create", "--label", "a=c", "vol"]);
    assert!(again.stderr.contains("is there already"), "{again:?}");
    assert_eq!(
        daemon
            .davit(&[
                "volume",
                "inspect",
                "-f",
                "{{.Labels.a}} {{.Driver}}",
                "vol"
            ])
            .ok(),
        "b local"
    );
    let anonymous = daemon.davit(&["volume", "create"]).ok();
    assert_eq!(anonymous.len(), 64);
    let mount = "type=volume,source=vol,target=/x";
    daemon
        .davit(&[
            "run",
            "--rm",
            "--mount",
            mount,
            &image,
            "sh",
            "-c",
            "echo kept >/x/f",
        ])
        .ok();
    no_container(&daemon);
    let sizes = daemon
        .davit(&[
            "volume",
            "ls",
            "--size",
            "--format",
            "{{.Name}} {{.Size}}",
            "-f",
            "name=v",
        ])
        .ok();
    assert!(sizes.starts_with("vol ") && sizes.ends_with('B'), "{sizes}");
    daemon
        .davit(&[
            "run", "-d", "--name", "c", "--mount", mount, &image, "sleep", "1000",
        ])
        .ok();
    refused(
        daemon.davit(&["volume", "rm", "vol"]),
        "remove vol: volume is in use - [",
    );
    let dry = daemon
        .davit(&["volume", "prune", "--all", "--dry-run"])
        .ok();
    assert!(
        dry.contains("Would delete") && dry.contains(&anonymous) && !dry.contains("vol\n"),
        "{dry}"
    );
    assert_eq!(volumes(&daemon).len(), 2);
    daemon.davit(&["rm", "-f", "c"]).ok();
    let pruned = daemon.davit(&["volume", "prune", "-f"]).ok();
    assert!(pruned.contains(&anonymous), "{pruned}");
    assert_eq!(volumes(&daemon), ["vol"]);
    let pruned = daemon.davit(&["volume", "prune", "-f", "--all"]).ok();
    assert!(
        pruned.contains("\nvol\n") && pruned.contains("Total reclaimed space: "),
        "{pruned}"
    );
    assert!(volumes(&daemon).is_empty());
    let args = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "type=volume",
        "--format",
        "{{.Action}}",
    ];
    eventually("all of it to be in the events", || {
        let events = daemon.davit(&args).ok();
        events.starts_with("create\ncreate\nmount\nunmount\n") && events.ends_with("destroy\nprune")
    });
}

#[test]
fn a_new_volume_gets_the_images_files_once() {
    let (daemon, image) = prepared();
    let read = |mount: &str| {
        daemon.docker(&[
            "run",
            "--rm",
            "-v",
            mount,
            &image,
            "cat",
            "/data/file",
            "/data/sub/deep",
        ])
    };
    assert_eq!(read("vol:/data").ok(), "from the imagedeep");
    fs::write(volume_dir(&daemon, "vol").join("_data/file"), "changed").unwrap();
    assert_eq!(read("vol:/data").ok(), "changeddeep");
    assert_ne!(read("wol:/data:nocopy").code, 0);
    // An old volume that is empty gets them, too.
    assert_eq!(read("wol:/data").ok(), "from the imagedeep");
    let parent = daemon.docker(&["run", "--rm", "-v", "xol:/plain/other", &image, "true"]);
    refused(parent, "cannot mount volume over existing file");
    assert_eq!(volumes(&daemon), ["vol", "wol"]);
}

#[test]
fn anonymous_volumes_go_with_their_container() {
    let (daemon, image) = prepared();
    daemon
        .docker(&["run", "--rm", &image, "test", "-e", "/data/file"])
        .ok();
    eventually("the volume of --rm to be gone", || {
        volumes(&daemon).is_empty()
    });
    daemon
        .docker(&[
            "create",
            "--name",
            "c",
            "-v",
            "/more",
            "-v",
            "named:/named",
            &image,
            "true",
        ])
        .ok();
    let points = daemon
        .docker(&[
            "inspect",
            "-f",
            "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}} {{.Driver}};{{end}}",
            "c",
        ])
        .ok();
    let mut points: Vec<&str> = points.trim_end_matches(';').split(';').collect();
    points.sort_unstable();
    assert_eq!(
        points,
        [
            "volume /data true local",
            "volume /more true local",
            "volume /named true local"
        ]
    );
    assert_eq!(volumes(&daemon).len(), 3);
    daemon.docker(&["rm", "-v", "c"]).ok();
    assert_eq!(volumes(&daemon), ["named"]);
    daemon
        .docker(&["create", "--name", "c", &image, "true"])
        .ok();
    daemon.docker(&["rm", "c"]).ok();
    assert_eq!(volumes(&daemon).len(), 2);
    daemon.docker(&["volume", "prune", "-f"]).ok();
    assert_eq!(volumes(&daemon), ["named"]);
    // What is mounted there comes before the image's volume.
    daemon
        .docker(&["create", "--name", "c", "-v", "named:/data", &image, "true"])
        .ok();
    assert_eq!(volumes(&daemon), ["named"]);
    daemon.docker(&["rm", "c"]).ok();
    // Before API 1.42 named ones went without being asked for.
    let old = run(
        daemon
            .docker_command()
            .env("DOCKER_API_VERSION", "1.41")
            .args(["volume", "prune", "-f"]),
        None,
    );
    assert!(old.ok().contains("named"));
    assert!(volumes(&daemon).is_empty());
    daemon.docker(&["volume", "create", "named"]).ok();
    daemon.docker(&["volume", "prune", "-af"]).ok();
    assert!(volumes(&daemon).is_empty());
}

#[test]
fn cp_reaches_the_volumes_of_a_container_that_does_not_run() {
    let (daemon, image) = prepared();
    let new = ["-v", "vol:/vol/ume", "-v", "keep:/keep:ro"];
    let mut args = vec!["create", "--name", "c"];
    args.extend(new);
    args.extend([image.as_str(), "cat", "/vol/ume/f", "/data/g"]);
    daemon.docker(&args).ok();
    let file = daemon.dir().join("f");
    fs::write(&file, "copied").unwrap();
    let file = file.to_str().unwrap();
    daemon.docker(&["cp", file, "c:/vol/ume/f"]).ok();
    daemon.docker(&["cp", file, "c:/data/g"]).ok();
    assert_ne!(daemon.docker(&["cp", file, "c:/keep/f"]).code, 0);
    let data = volume_dir(&daemon, "vol").join("_data");
    assert_eq!(fs::read_to_string(data.join("f")).unwrap(), "copied");
    let back = daemon.dir().join("back");
    daemon
        .docker(&["cp", "c:/data", back.to_str().unwrap()])
        .ok();
    assert_eq!(fs::read_to_string(back.join("g")).unwrap(), "copied");
    assert_eq!(daemon.docker(&["start", "-a", "c"]).ok(), "copiedcopied");
}

#[test]
fn volumes_of_others() {
    let (daemon, image) = prepared();
    let donor = [
        "run",
        "-d",
        "--name",
        "donor",
        "-v",
        "vol:/v",
        "-v",
        "/tmp:/host:ro",
        &image,
        "sleep",
        "1000",
    ];
    daemon.docker(&donor).ok();
    daemon
        .docker(&[
            "exec",
            "donor",
            "sh",
            "-c",
            "echo one >/v/f; echo two >/data/g",
        ])
        .ok();
    let read = [
        "run",
        "--rm",
        "--volumes-from",
        "donor:ro",
        &image,
        "sh",
        "-c",
        "cat /v/f /data/g; test -d /host && ! touch /v/x 2>/dev/null",
    ];
    assert_eq!(daemon.docker(&read).ok(), "one\ntwo");
    assert_eq!(
        daemon
            .davit(&[
                "run",
                "--rm",
                "--volumes-from",
                "donor",
                &image,
                "cat",
                "/data/g"
            ])
            .ok(),
        "two"
    );
    daemon
        .docker(&[
            "create",
            "--name",
            "heir",
            "--volumes-from",
            "donor",
            &image,
            "cat",
            "/data/g",
        ])
        .ok();
    daemon.docker(&["rm", "-fv", "donor"]).ok();
    // The anonymous one has an heir, which goes on when the donor is gone.
    assert_eq!(daemon.docker(&["start", "-a", "heir"]).ok(), "two");
    daemon.docker(&["rm", "-v", "heir"]).ok();
    assert_eq!(volumes(&daemon), ["vol"]);
    refused(
        daemon.docker(&["create", "--volumes-from", "nobody", &image]),
        "No such container: nobody",
    );
    refused(
        daemon.docker(&["create", "--volumes-from", "x:bogus", &image]),
        "invalid mode",
    );
}

#[test]
fn a_typing_error_is_told() {
    let (daemon, image) = prepared();
    daemon.docker(&["volume", "create", "web_volume"]).ok();
    let run =
        |name: &str| daemon.docker(&["run", "--rm", "-v", &format!("{name}:/x"), &image, "true"]);
    let output = run("web_volum");
    assert!(
        output
            .stderr
            .contains("created new volume `web_volum`; did you mean `web_volume`?"),
        "{output:?}"
    );
    assert_eq!(run("web_volume").stderr, "");
    let output = run("something");
    assert!(
        output.stderr.contains("created new volume `something`\n"),
        "{output:?}"
    );
    let mount = "type=volume,source=web_volumes,target=/x,volume-must-exist";
    refused(
        daemon.davit(&["run", "--mount", mount, &image, "true"]),
        "did you mean `web_volume`?",
    );
    assert_eq!(volumes(&daemon), ["something", "web_volum", "web_volume"]);
    assert!(daemon.docker(&["ps", "-aq"]).ok().is_empty());
}

#[test]
fn volumes_are_not_made_where_the_configuration_says_so() {
    let (daemon, image) = with(Daemon::builder().config("[volumes]\nauto_create = false\n"));
    daemon.docker(&["volume", "create", "db_data"]).ok();
    let output = daemon.docker(&["run", "-v", "db_dta:/x", &image, "true"]);
    refused(output, "no such volume: `db_dta`; did you mean `db_data`?");
    daemon
        .docker(&["run", "--rm", "-v", "db_data:/x", &image, "true"])
        .ok();
    assert_eq!(volumes(&daemon), ["db_data"]);
}

#[test]
fn binds_of_both_forms() {
    let (daemon, image) = prepared();
    let missing = daemon.dir().join("missing");
    let mount = format!("type=bind,source={},target=/x", missing.display());
    refused(
        daemon.docker(&["run", "--mount", &mount, &image, "true"]),
        missing.to_str().unwrap(),
    );
    assert!(!missing.exists());
    let output = daemon.docker(&[
        "run",
        "--rm",
        "-v",
        &format!("{}:/x", missing.display()),
        &image,
        "touch",
        "/x/f",
    ]);
    assert!(
        output.stderr.contains(missing.to_str().unwrap()),
        "{output:?}"
    );
    assert_eq!(output.code, 0);
    assert!(missing.join("f").exists());
}

#[test]
fn parts_of_volumes() {
    let (daemon, image) = prepared();
    daemon.docker(&["volume", "create", "vol"]).ok();
    let data = volume_dir(&daemon, "vol").join("_data");
    fs::create_dir_all(data.join("a/b")).unwrap();
    fs::write(data.join("a/b/f"), "part").unwrap();
    fs::write(data.join("single"), "file").unwrap();
    std::os::unix::fs::symlink("/etc", data.join("escape")).unwrap();
    let run = |part: &str, command: &[&str]| {
        let mount = format!("type=volume,source=vol,target=/x,volume-subpath={part}");
        let mut args = vec!["run", "--rm", "--mount", &mount, &image];
        args.extend(command);
        daemon.docker(&args)
    };
    assert_eq!(run("a/b", &["cat", "/x/f"]).ok(), "part");
    assert_eq!(run("single", &["cat", "/x"]).ok(), "file");
    refused(
        run("nothing", &["true"]),
        "cannot mount \"nothing\" of volume vol",
    );
    refused(
        run("escape", &["true"]),
        "cannot mount \"escape\" of volume vol",
    );
    eventually("the mounts to be gone", || mounts_of(&daemon) == 0);
}

#[test]
fn files_of_images() {
    let (mut daemon, image) = prepared();
    let mount = format!("type=image,source={image},target=/x");
    let args = [
        "run", "-d", "--name", "c", "--mount", &mount, &image, "sleep", "1000",
    ];
    daemon.davit(&args).ok();
    assert_eq!(
        daemon.davit(&["exec", "c", "cat", "/x/data/file"]).ok(),
        "from the image"
    );
    assert_ne!(daemon.davit(&["exec", "c", "touch", "/x/new"]).code, 0);
    daemon.crash_and_restart();
    assert_eq!(
        daemon.davit(&["exec", "c", "cat", "/x/data/file"]).ok(),
        "from the image"
    );
    daemon.davit(&["restart", "-t", "0", "c"]).ok();
    assert_eq!(
        daemon.davit(&["exec", "c", "cat", "/x/data/file"]).ok(),
        "from the image"
    );
    daemon.davit(&["stop", "-t", "0", "c"]).ok();
    daemon.stop();
    // What a lost store can't know is made again.
    fs::remove_dir_all(daemon.root().join("store")).unwrap();
    daemon.start_again();
    daemon.davit(&["start", "c"]).ok();
    assert_eq!(
        daemon.davit(&["exec", "c", "cat", "/x/data/file"]).ok(),
        "from the image"
    );
    daemon.davit(&["rm", "-fv", "c"]).ok();
    let part = format!("type=image,source={image},target=/x,image-subpath=data/sub");
    assert_eq!(
        daemon
            .davit(&["run", "--rm", "--mount", &part, &image, "cat", "/x/deep"])
            .ok(),
        "deep"
    );
    eventually("the mounts to be gone", || mounts_of(&daemon) == 0);
    refused(
        daemon.davit(&[
            "create",
            "--mount",
            "type=image,source=nope,target=/x",
            &image,
        ]),
        "cannot mount image nope",
    );
}

#[test]
fn local_volumes_with_a_device() {
    let (mut daemon, image) = prepared();
    let outside = daemon.dir().join("outside");
    fs::create_dir(&outside).unwrap();
    let device = format!("device={}", outside.display());
    daemon
        .docker(&[
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind",
            "-o",
            &device,
            "bound",
        ])
        .ok();
    daemon
        .docker(&[
            "volume",
            "create",
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "-o",
            "o=size=1m,mode=0700",
            "memory",
        ])
        .ok();
    daemon
        .docker(&[
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind",
            "-o",
            "device=/no/such",
            "broken",
        ])
        .ok();
    let broken = daemon.docker(&["run", "--rm", "-v", "broken:/x:nocopy", &image, "true"]);
    refused(
        broken,
        "failed to mount local volume broken: mount /no/such:",
    );
    for name in ["a", "b"] {
        daemon
            .docker(&[
                "run",
                "-d",
                "--name",
                name,
                "-v",
                "bound:/x",
                "-v",
                "memory:/m",
                &image,
                "sleep",
                "1000",
            ])
            .ok();
    }
    daemon
        .docker(&["exec", "a", "sh", "-c", "echo hi >/x/f; echo ho >/m/f"])
        .ok();
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "hi\n");
    assert_eq!(daemon.docker(&["exec", "b", "cat", "/m/f"]).ok(), "ho");
    assert_eq!(mounts_of(&daemon), 2);
    daemon.crash_and_restart();
    daemon.docker(&["rm", "-fv", "a"]).ok();
    assert_eq!(mounts_of(&daemon), 2);
    assert_eq!(daemon.docker(&["exec", "b", "cat", "/m/f"]).ok(), "ho");
    daemon.docker(&["rm", "-fv", "b"]).ok();
    assert_eq!(mounts_of(&daemon), 0);
    daemon
        .docker(&["volume", "rm", "bound", "memory", "broken"])
        .ok();
    assert!(outside.join("f").exists());
}

/// A plugin that runs until it is dropped.
pub(crate) struct Plugin {
    child: Child,
    dir: tempfile::TempDir,
}

impl Plugin {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plugin-")
            .tempdir_in("/tmp")
            .unwrap();
        let child = Self::spawn(&dir);
        let plugin = Self { child, dir };
        plugin.wait();
        plugin
    }

    fn spawn(dir: &tempfile::TempDir) -> Child {
        Command::new(binary("volume-plugin"))
            .arg(dir.path().join("remote.sock"))
            .arg(dir.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait(&self) {
        let socket = self.dir.path().join("remote.sock");
        eventually("the plugin", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    pub(crate) fn builder(&self) -> DaemonBuilder {
        Daemon::builder().config(&format!(
            "[volumes]\nplugin_sockets = [\"{}\"]\nplugin_specs = []\ntimeout_seconds = 2\nlist_timeout_seconds = 1\n",
            self.dir.path().display()
        ))
    }

    fn mounts(&self) -> usize {
        fs::read_dir(self.dir.path().join("mounts"))
            .unwrap()
            .count()
    }

    fn hang(&self, yes: bool) {
        let file = self.dir.path().join("hang");
        if yes {
            fs::write(file, "").unwrap()
        } else {
            fs::remove_file(file).unwrap()
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        fs::remove_file(self.dir.path().join("remote.sock")).unwrap();
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_plugin_keeps_volumes() {
    let plugin = Plugin::start();
    let (mut daemon, image) = with(plugin.builder());
    assert_eq!(
        daemon
            .docker(&["volume", "create", "-d", "remote", "vol"])
            .ok(),
        "vol"
    );
    refused(
        daemon.docker(&["volume", "create", "-d", "remote", "refused"]),
        "VolumeDriver.Create: this one I do not keep",
    );
    refused(
        daemon.docker(&["volume", "create", "vol"]),
        "volume name must be unique",
    );
    let facts = daemon
        .docker(&[
            "volume",
            "inspect",
            "-f",
            "{{.Driver}} {{.Scope}} {{.Status.kept}}",
            "vol",
        ])
        .ok();
    assert_eq!(facts, "remote global in a test");
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "c",
            "-v",
            "vol:/data",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    assert_eq!(
        daemon.docker(&["exec", "c", "cat", "/data/file"]).ok(),
        "from the image"
    );
    assert_eq!(plugin.mounts(), 1);
    assert!(plugin.dir.path().join("data/vol/file").exists());
    daemon.crash_and_restart();
    assert_eq!(plugin.mounts(), 1);
    daemon.docker(&["restart", "-t", "0", "c"]).ok();
    assert_eq!(plugin.mounts(), 1);
    refused(daemon.docker(&["volume", "rm", "vol"]), "volume is in use");
    daemon.docker(&["rm", "-fv", "c"]).ok();
    assert_eq!(plugin.mounts(), 0);
    // What another host has made is found without being told of.
    fs::create_dir(plugin.dir.path().join("data/shared")).unwrap();
    assert_eq!(volumes(&daemon), ["shared", "vol"]);
    daemon
        .docker(&["run", "--rm", "-v", "shared:/x", &image, "touch", "/x/f"])
        .ok();
    assert!(plugin.dir.path().join("data/shared/f").exists());
    daemon.docker(&["volume", "rm", "vol", "shared"]).ok();
    assert!(volumes(&daemon).is_empty());
    assert_eq!(
        fs::read_dir(plugin.dir.path().join("data"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_plugin_that_hangs_or_dies_blocks_nobody_else() {
    let mut plugin = Plugin::start();
    let (daemon, image) = made_of(plugin.builder(), &ImageSpec::default());
    daemon
        .docker(&["volume", "create", "-d", "remote", "vol"])
        .ok();
    daemon
        .docker(&["create", "--name", "c", "-v", "vol:/x", &image, "true"])
        .ok();
    plugin.hang(true);
    let stuck = daemon
        .docker_command()
        .args(["start", "c"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the plugin to be asked", || {
        fs::read_to_string(plugin.dir.path().join("calls"))
            .unwrap()
            .lines()
            .filter(|call| *call == "VolumeDriver.Mount vol")
            .count()
            > 0
    });
    daemon
        .docker(&["run", "--rm", "-v", "other:/x", &image, "true"])
        .ok();
    let stuck = stuck.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&stuck.stderr).into_owned();
    assert!(
        !stuck.status.success() && text.contains("did not answer VolumeDriver.Mount within 2s"),
        "{text}"
    );
    let list = daemon.davit(&["volume", "ls", "-q"]);
    assert!(
        list.stderr.contains("volume plugin remote did not answer"),
        "{list:?}"
    );
    assert_eq!(list.ok(), "other\nvol");
    assert_eq!(
        daemon
            .davit(&["volume", "inspect", "-f", "{{.Driver}}", "vol"])
            .ok(),
        "remote"
    );
    plugin.hang(false);
    daemon.docker(&["start", "-a", "c"]).ok();
    plugin.end();
    refused(
        daemon.docker(&["start", "c"]),
        "plugin \"remote\" not found",
    );
    daemon.docker(&["rm", "c"]).ok();
    refused(
        daemon.docker(&["volume", "rm", "vol"]),
        "plugin \"remote\" not found",
    );
    daemon.docker(&["volume", "rm", "-f", "vol"]).ok();
    assert_eq!(volumes(&daemon), ["other"]);
}

/// Dies at each step of making, filling and removing; nothing half-made stays,
/// and the next try goes through.
#[test]
fn killed_at_every_step() {
    let steps: &[(&str, &[&str])] = &[
        (
            "engine.volume.create.after-intent",
            &["volume", "create", "vol"],
        ),
        (
            "engine.volume.create.after-directory",
            &["volume", "create", "vol"],
        ),
        (
            "engine.volume.create.after-record",
            &["volume", "create", "vol"],
        ),
        (
            "engine.volume.create.of-container",
            &["create", "--name", "c", "-v", "vol:/data", "IMAGE"],
        ),
        (
            "engine.volume.fill.after-intent",
            &["create", "--name", "c", "-v", "vol:/data", "IMAGE"],
        ),
        (
            "engine.volume.fill.after-gather",
            &["create", "--name", "c", "-v", "vol:/data", "IMAGE"],
        ),
        (
            "engine.volume.fill.moving",
            &["create", "--name", "c", "-v", "vol:/data", "IMAGE"],
        ),
        (
            "engine.create.after-record",
            &["create", "--name", "c", "-v", "vol:/data", "IMAGE"],
        ),
    ];
    let (mut daemon, image) = prepared();
    for (failpoint, args) in steps {
        daemon.kill9();
        daemon.start_again_with_failpoints(&format!("{failpoint}=panic"));
        let args: Vec<&str> = args
            .iter()
            .map(|arg| if *arg == "IMAGE" { image.as_str() } else { arg })
            .collect();
        assert_ne!(daemon.davit(&args).code, 0, "{failpoint}");
        daemon.crash_and_restart();
        let left = volumes(&daemon);
        // What was recorded and not yet answered may have been written or not.
        let at_most = usize::from(failpoint.ends_with("after-record"));
        assert!(left.len() <= at_most, "{failpoint}: {left:?}");
        assert_eq!(
            volume_dir(&daemon, "vol").exists(),
            left.len() == 1,
            "{failpoint}"
        );
        daemon.davit(&["rm", "-f", "c"]);
        daemon.davit(&["volume", "rm", "-f", "vol"]).ok();
        let whole = daemon.davit(&[
            "run",
            "--rm",
            "-v",
            "vol:/data",
            &image,
            "cat",
            "/data/file",
            "/data/sub/deep",
        ]);
        assert_eq!(whole.ok(), "from the imagedeep", "{failpoint}");
        no_container(&daemon);
        daemon.davit(&["volume", "rm", "vol"]).ok();
    }
    for failpoint in ["after-intent", "after-rename", "after-record"] {
        daemon.davit(&["volume", "create", "vol"]).ok();
        daemon.kill9();
        daemon.start_again_with_failpoints(&format!("engine.volume.remove.{failpoint}=panic"));
        assert_ne!(
            daemon.davit(&["volume", "rm", "vol"]).code,
            0,
            "{failpoint}"
        );
        daemon.crash_and_restart();
        assert!(volumes(&daemon).is_empty(), "{failpoint}");
        eventually("its data to be gone", || {
            fs::read_dir(daemon.root().join("volumes")).unwrap().count() == 0
        });
    }
}

/// A volume that was there and is being filled: what is half done is ended.
#[test]
fn a_half_filled_volume_does_not_count_as_full() {
    let (mut daemon, image) = prepared();
    for failpoint in ["fill.after-gather", "fill.moving"] {
        daemon.davit(&["volume", "create", "vol"]).ok();
        daemon.kill9();
        daemon.start_again_with_failpoints(&format!("engine.volume.{failpoint}=panic"));
        assert_ne!(
            daemon.davit(&["create", "-v", "vol:/data", &image]).code,
            0,
            "{failpoint}"
        );
        daemon.crash_and_restart();
        assert!(
            !volume_dir(&daemon, "vol").join(".filling").exists(),
            "{failpoint}"
        );
        let whole = daemon.davit(&[
            "run",
            "--rm",
            "-v",
            "vol:/data",
            &image,
            "cat",
            "/data/file",
            "/data/sub/deep",
        ]);
        assert_eq!(whole.ok(), "from the imagedeep", "{failpoint}");
        no_container(&daemon);
        daemon.davit(&["volume", "rm", "vol"]).ok();
    }
}

/// The same on a file system of its own, which has to be mounted for it.
#[test]
fn a_half_filled_device_is_ended() {
    let (mut daemon, image) = prepared();
    let outside = daemon.dir().join("outside");
    for failpoint in ["fill.after-gather", "fill.moving", "mount.after-unmounts"] {
        fs::create_dir(&outside).unwrap();
        let device = format!("device={}", outside.display());
        let options = ["-o", "type=none", "-o", "o=bind", "-o", &device, "vol"];
        let mut args = vec!["volume", "create"];
        args.extend(options);
        daemon.davit(&args).ok();
        daemon.kill9();
        daemon.start_again_with_failpoints(&format!("engine.volume.{failpoint}=panic"));
        let created = daemon.davit(&["create", "-v", "vol:/data", &image]);
        assert_ne!(created.code, 0, "{failpoint}");
        daemon.crash_and_restart();
        assert_eq!(mounts_of(&daemon), 0, "{failpoint}");
        assert!(!outside.join(".davit-filling").exists(), "{failpoint}");
        let read = [
            "run",
            "--rm",
            "-v",
            "vol:/data",
            &image,
            "cat",
            "/data/file",
            "/data/sub/deep",
        ];
        assert_eq!(
            daemon.davit(&read).ok(),
            "from the imagedeep",
            "{failpoint}"
        );
        no_container(&daemon);
        daemon.davit(&["volume", "rm", "vol"]).ok();
        assert!(outside.join("file").exists(), "{failpoint}");
        fs::remove_dir_all(&outside).unwrap();
    }
}

#[test]
fn killed_while_mounting() {
    let (mut daemon, image) = prepared();
    daemon
        .davit(&[
            "volume",
            "create",
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "vol",
        ])
        .ok();
    daemon
        .davit(&[
            "create",
            "--name",
            "c",
            "-v",
            "vol:/x:nocopy",
            &image,
            "true",
        ])
        .ok();
    for failpoint in ["after-intent", "after-mounts"] {
        daemon.kill9();
        daemon.start_again_with_failpoints(&format!("engine.volume.mount.{failpoint}=panic"));
        let _ = daemon.davit(&["start", "c"]);
        daemon.crash_and_restart();
        assert_eq!(mounts_of(&daemon), 0, "{failpoint}");
        daemon.docker(&["start", "-a", "c"]).ok();
        eventually("the mount to be gone", || mounts_of(&daemon) == 0);
    }
}

#[test]
fn data_without_a_record_is_found_again() {
    let (mut daemon, image) = prepared();
    daemon
        .davit(&["volume", "create", "--label", "a=b", "vol"])
        .ok();
    daemon
        .davit(&["run", "--rm", "-v", "vol:/x", &image, "touch", "/x/kept"])
        .ok();
    daemon.stop();
    fs::remove_dir_all(daemon.root().join("store")).unwrap();
    daemon.start_again();
    assert_eq!(
        daemon
            .davit(&["volume", "inspect", "-f", "{{.Labels.a}}", "vol"])
            .ok(),
        "b"
    );
    assert!(volume_dir(&daemon, "vol").join("_data/kept").exists());
}
