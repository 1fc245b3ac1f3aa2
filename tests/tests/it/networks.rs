//! Networks: names, ports, isolation, and what is left when it is over. All
//! traffic stays on the loopback and in namespaces that the tests make.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

use davit_tests::{Daemon, ImageSpec, Registry, command, eventually, run_ok, until};

fn prepared() -> (Daemon, String) {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:latest", &ImageSpec::default());
    (daemon, image)
}

/// A web server that says its text.
const WEB: &str = "mkdir -p /w && echo $TEXT > /w/index.html && exec httpd -f -p 80 -h /w";

fn web(daemon: &Daemon, image: &str, flags: &[&str], text: &str) {
    let text = format!("TEXT={text}");
    let mut args = vec!["run", "-d", "-e", &text];
    args.extend(flags);
    args.extend([image, "sh", "-c", WEB]);
    daemon.davit(&args).ok();
}

fn inspect(daemon: &Daemon, name: &str, format: &str) -> String {
    daemon.davit(&["inspect", "-f", format, name]).ok()
}

/// What a web server at this address says.
fn get(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split("\r\n\r\n")
        .nth(1)
        .map(|body| body.trim().to_owned())
}

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn links() -> BTreeSet<String> {
    fs::read_dir("/sys/class/net")
        .expect("links")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Another host: a namespace with a link to this one.
struct Elsewhere {
    name: String,
    /// This host as it sees it.
    host: String,
}

impl Elsewhere {
    fn new(number: u8) -> Self {
        let name = format!("davit-test-{}-{number}", std::process::id());
        let (outer, inner) = (
            format!("dt{number}-{}", std::process::id() % 100_000),
            "up0",
        );
        let ip = |args: &[&str]| {
            run_ok("ip", args);
        };
        ip(&["netns", "add", &name]);
        ip(&[
            "link", "add", &outer, "type", "veth", "peer", "name", inner, "netns", &name,
        ]);
        let (host, own) = (format!("198.18.{number}.1"), format!("198.18.{number}.2"));
        ip(&["addr", "add", &format!("{host}/24"), "dev", &outer]);
        ip(&["link", "set", &outer, "up"]);
        ip(&[
            "-n",
            &name,
            "addr",
            "add",
            &format!("{own}/24"),
            "dev",
            inner,
        ]);
        ip(&["-n", &name, "link", "set", inner, "up"]);
        ip(&["-n", &name, "route", "add", "default", "via", &host]);
        Self { name, host }
    }

    /// What a web server says when it is asked from here.
    fn get(&self, address: &str) -> Option<String> {
        // busybox's wget has a time limit of its own, which crashes it.
        let output = command("ip")
            .args(["netns", "exec", &self.name, "busybox", "timeout", "3"])
            .args(["busybox", "wget", "-q", "-O", "-"])
            .arg(format!("http://{address}/"))
            .output()
            .expect("ip can be run");
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = command("ip").args(["netns", "del", &self.name]).status();
    }
}

#[test]
fn containers_find_each_other_by_name() {
    let (mut daemon, image) = prepared();
    daemon
        .davit(&["network", "create", "--label", "a=b", "mine"])
        .ok();
    web(
        &daemon,
        &image,
        &[
            "--name",
            "web",
            "--network",
            "mine",
            "--network-alias",
            "site",
        ],
        "hello",
    );
    let id = inspect(&daemon, "web", "{{.Id}}");
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            "--network",
            "mine",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    for name in ["web", "site", "WEB", "web.mine", &id[..12]] {
        let url = format!("http://{name}/");
        assert_eq!(
            daemon
                .davit(&["exec", "c", "wget", "-q", "-O", "-", &url])
                .ok(),
            "hello",
            "{name}"
        );
    }
    let lookup = daemon
        .davit(&["exec", "c", "nslookup", "web", "127.0.0.11"])
        .ok();
    let address = inspect(
        &daemon,
        "web",
        "{{.NetworkSettings.Networks.mine.IPAddress}}",
    );
    assert!(lookup.contains(&address), "{lookup}");
    let reverse = daemon
        .davit(&["exec", "c", "nslookup", &address, "127.0.0.11"])
        .ok();
    assert!(reverse.contains("web.mine"), "{reverse}");
    assert_eq!(
        daemon
            .davit(&["exec", "c", "head", "-1", "/etc/resolv.conf"])
            .ok(),
        "nameserver 127.0.0.11"
    );
    // Names are in /etc/hosts, too: they work without a daemon.
    let hosts = || daemon.davit(&["exec", "c", "cat", "/etc/hosts"]).ok();
    eventually("the peer to be in /etc/hosts", || {
        hosts().contains(&format!("{address}\tweb site"))
    });
    // And the name server is back with the daemon.
    daemon.crash_and_restart();
    let lookup = daemon
        .davit(&["exec", "c", "nslookup", "site", "127.0.0.11"])
        .ok();
    assert!(lookup.contains(&address), "{lookup}");
    daemon.davit(&["rename", "web", "other"]).ok();
    let lookup = daemon
        .davit(&["exec", "c", "nslookup", "other", "127.0.0.11"])
        .ok();
    assert!(lookup.contains(&address), "{lookup}");
    daemon.davit(&["rm", "-f", "other"]).ok();
    let hosts = || daemon.davit(&["exec", "c", "cat", "/etc/hosts"]).ok();
    eventually("the peer to be gone from /etc/hosts", || {
        !hosts().contains(&address)
    });
    // On the default network nobody has a name.
    daemon
        .davit(&["run", "-d", "--name", "plain", &image, "sleep", "1000"])
        .ok();
    let hosts = daemon
        .davit(&["exec", "plain", "cat", "/etc/resolv.conf"])
        .ok();
    assert!(!hosts.contains("127.0.0.11"), "{hosts}");
    daemon.davit(&["rm", "-f", "c", "plain"]).ok();
    daemon.davit(&["network", "rm", "mine"]).ok();
}

#[test]
fn a_published_port_outlives_the_daemon() {
    let (mut daemon, image) = prepared();
    let elsewhere = Elsewhere::new(1);
    let (port, echo) = (free_port(), free_port());
    web(
        &daemon,
        &image,
        &["--name", "web", "-p", &format!("{port}:80")],
        "hello",
    );
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "echo",
            "-p",
            &format!("{echo}:7"),
            &image,
            "nc",
            "-ll",
            "-p",
            "7",
            "-e",
            "cat",
        ])
        .ok();
    let (local, remote) = (
        format!("127.0.0.1:{port}"),
        format!("{}:{port}", elsewhere.host),
    );
    let hello = Some("hello".to_owned());
    eventually("the web server to answer", || get(&local) == hello);
    assert_eq!(elsewhere.get(&remote), hello);
    assert_eq!(get(&remote), hello, "the host by its own address");
    // A connection that is open across the kill.
    let mut open = until("the echo server to answer", || {
        TcpStream::connect(("127.0.0.1", echo)).ok()
    });
    open.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut say = |text: &[u8; 4]| {
        open.write_all(text).unwrap();
        let mut back = [0; 4];
        open.read_exact(&mut back).unwrap();
        assert_eq!(&back, text);
    };
    say(b"one\n");
    daemon.kill9();
    say(b"two\n");
    assert_eq!(get(&local), hello);
    assert_eq!(elsewhere.get(&remote), hello);
    daemon.start_again();
    say(b"tri\n");
    assert_eq!(get(&local), hello);
    assert_eq!(elsewhere.get(&remote), hello);
    // The port is still known to be taken, and by whom.
    let again = daemon.davit(&[
        "run",
        "-d",
        "--name",
        "two",
        "-p",
        &format!("{port}:80"),
        &image,
        "sleep",
        "1000",
    ]);
    assert_eq!(again.code, 125);
    let text = format!("Bind for 0.0.0.0:{port} failed: port is already allocated");
    assert!(
        again
            .stderr
            .contains("driver failed programming external connectivity on endpoint two"),
        "{}",
        again.stderr
    );
    assert!(
        again.stderr.contains(&text) && again.stderr.contains("container web has it"),
        "{}",
        again.stderr
    );
    // What is not published is not reached from elsewhere.
    let address = inspect(&daemon, "web", "{{.NetworkSettings.IPAddress}}");
    assert_eq!(elsewhere.get(&format!("{address}:80")), None);
    assert_eq!(get(&format!("{address}:80")), hello);
    // The port is free with the container, at once.
    daemon.davit(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(get(&local), None);
    daemon.davit(&["start", "two"]).ok();
    daemon.davit(&["rm", "-f", "web", "two", "echo"]).ok();
}

#[test]
fn ports_in_their_forms() {
    let (daemon, image) = prepared();
    let busy = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let taken = busy.local_addr().unwrap().port();
    let refused = daemon.davit(&["run", "--rm", "-p", &format!("{taken}:80"), &image, "true"]);
    assert_eq!(refused.code, 125);
    assert!(
        refused.stderr.contains("address already in use"),
        "{}",
        refused.stderr
    );
    web(
        &daemon,
        &image,
        &["--name", "a", "-p", "127.0.0.1::80"],
        "only here",
    );
    let shown = daemon.davit(&["ps", "--format", "{{.Ports}}"]).ok();
    let address = shown.strip_suffix("->80/tcp").expect("one port").to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{shown}");
    eventually("the web server to answer", || {
        get(&address).as_deref() == Some("only here")
    });
    web(
        &daemon,
        &image,
        &["--name", "b", "-P", "--expose", "80"],
        "all",
    );
    let ports = inspect(&daemon, "b", "{{json .NetworkSettings.Ports}}");
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    let port = ports["80/tcp"][0]["HostPort"].as_str().unwrap().to_owned();
    eventually("the web server to answer", || {
        get(&format!("127.0.0.1:{port}")).as_deref() == Some("all")
    });
    web(&daemon, &image, &["--name", "c", "--expose", "80"], "none");
    assert_eq!(
        daemon
            .davit(&["ps", "-f", "name=c", "--format", "{{.Ports}}"])
            .ok(),
        "80/tcp"
    );
    // UDP, published by the real docker CLI; the server is this test's.
    let udp = free_port();
    let publish = format!("{udp}:9/udp");
    daemon
        .docker(&[
            "run", "-d", "--name", "u", "-p", &publish, &image, "sleep", "1000",
        ])
        .ok();
    let inside = format!("/proc/{}/ns/net", inspect(&daemon, "u", "{{.State.Pid}}"));
    std::thread::spawn(move || {
        let namespace = fs::File::open(inside).unwrap();
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let server = std::net::UdpSocket::bind("0.0.0.0:9").unwrap();
        let mut buffer = [0; 100];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        let text = format!("got {}", String::from_utf8_lossy(&buffer[..length]));
        server.send_to(text.as_bytes(), from).unwrap();
    });
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let answer = until("an answer over UDP", || {
        socket.send_to(b"ping\n", ("127.0.0.1", udp)).ok()?;
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    });
    assert_eq!(answer.trim(), "got ping");
    for name in ["a", "b", "c", "u"] {
        daemon.davit(&["rm", "-f", name]).ok();
    }
}

#[test]
fn networks_are_apart_and_containers_move_between_them() {
    let (daemon, image) = prepared();
    for name in ["red", "blue"] {
        daemon.davit(&["network", "create", name]).ok();
    }
    web(
        &daemon,
        &image,
        &["--name", "web", "--network", "red"],
        "red",
    );
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            "--network",
            "blue",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    let address = inspect(
        &daemon,
        "web",
        "{{.NetworkSettings.Networks.red.IPAddress}}",
    );
    let ask = |what: &str| {
        let url = format!("http://{what}/");
        daemon.davit(&["exec", "c", "timeout", "3", "wget", "-q", "-O", "-", &url])
    };
    assert_ne!(ask(&address).code, 0);
    daemon
        .docker(&["network", "connect", "--alias", "mover", "red", "c"])
        .ok();
    assert_eq!(ask("web").ok(), "red");
    let again = daemon.docker(&["network", "connect", "red", "c"]);
    assert!(
        again
            .stderr
            .contains("endpoint with name c already exists in network red"),
        "{}",
        again.stderr
    );
    let used = daemon.docker(&["network", "rm", "red"]);
    assert!(
        used.stderr.contains("has active endpoints"),
        "{}",
        used.stderr
    );
    assert_eq!(
        daemon
            .davit(&["exec", "web", "nslookup", "mover", "127.0.0.11"])
            .code,
        0
    );
    daemon.docker(&["network", "disconnect", "red", "c"]).ok();
    assert_ne!(ask(&address).code, 0);
    assert_ne!(
        daemon.docker(&["network", "disconnect", "red", "c"]).code,
        0
    );
    let kinds = daemon
        .davit(&[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "-f",
            "type=network",
            "--format",
            "{{.Action}}",
        ])
        .ok();
    for kind in ["create", "connect", "disconnect"] {
        assert!(kinds.contains(kind), "{kinds}");
    }
    daemon.davit(&["rm", "-f", "web", "c"]).ok();
    assert_eq!(
        daemon
            .docker(&["network", "prune", "-f"])
            .ok()
            .lines()
            .count(),
        3
    );
}

#[test]
fn addresses_and_modes() {
    let (daemon, image) = prepared();
    let run = |args: &[&str], script: &str| {
        let mut all = vec!["run", "--rm"];
        all.extend(args);
        all.extend([image.as_str(), "sh", "-c", script]);
        daemon.docker(&all)
    };
    daemon
        .docker(&[
            "network",
            "create",
            "--subnet",
            "10.231.7.0/24",
            "--ipv6",
            "--subnet",
            "fd97:1::/64",
            "--gateway",
            "10.231.7.254",
            "-o",
            "com.docker.network.driver.mtu=1400",
            "six",
        ])
        .ok();
    let text = run(
        &[
            "--network",
            "six",
            "--ip",
            "10.231.7.9",
            "--ip6",
            "fd97:1::9",
        ],
        "ip addr show eth0; ip route; ip -6 route",
    )
    .ok();
    for part in [
        "10.231.7.9/24",
        "fd97:1::9/64",
        "mtu 1400",
        "default via 10.231.7.254",
        "default via fd97:1::1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "holder",
            "--network",
            "six",
            "--ip",
            "10.231.7.9",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    let refused = run(&["--network", "six", "--ip", "10.231.7.9"], "true");
    assert!(
        refused.code == 125 && refused.stderr.contains("Address already in use"),
        "{}",
        refused.stderr
    );
    let refused = run(&["--network", "six", "--ip", "10.9.9.9"], "true");
    assert!(
        refused
            .stderr
            .contains("no configured subnet contains IP address 10.9.9.9"),
        "{}",
        refused.stderr
    );
    let refused = daemon.docker(&["network", "create", "--subnet", "10.231.0.0/16", "clash"]);
    assert!(
        refused
            .stderr
            .contains("Pool overlaps with other one on this address space"),
        "{}",
        refused.stderr
    );
    assert_eq!(daemon.docker(&["network", "create", "six"]).code, 1);
    assert_eq!(
        run(
            &["--network", "container:holder"],
            "ip addr show eth0 | grep -c 10.231.7.9"
        )
        .ok(),
        "1"
    );
    assert_eq!(run(&["--network", "none"], "ls /sys/class/net").ok(), "lo");
    assert_eq!(
        run(&["--network", "host"], "ls -d /sys/class/net/lo").ok(),
        "/sys/class/net/lo"
    );
    assert_eq!(
        run(
            &["--mac-address", "02:42:11:22:33:44"],
            "cat /sys/class/net/eth0/address"
        )
        .ok(),
        "02:42:11:22:33:44"
    );
    let missing = run(&["--network", "nowhere"], "true");
    assert!(
        missing.code == 125 && missing.stderr.contains("network nowhere not found"),
        "{}",
        missing.stderr
    );
    let text = run(
        &["--add-host", "host.docker.internal:host-gateway"],
        "grep host.docker /etc/hosts; ip route",
    )
    .ok();
    let gateway = text.split_whitespace().next().unwrap().to_owned();
    assert!(text.contains(&format!("default via {gateway}")), "{text}");
    // Nothing comes out of an internal network.
    daemon
        .docker(&["network", "create", "--internal", "inside"])
        .ok();
    assert_eq!(
        run(&["--network", "inside"], "ip route | grep -c default")
            .stdout
            .trim(),
        "0"
    );
    let names = daemon
        .docker(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"])
        .ok();
    assert_eq!(
        names,
        "bridge bridge\nhost host\ninside bridge\nnone null\nsix bridge"
    );
    daemon.davit(&["rm", "-f", "holder"]).ok();
    for name in ["bridge", "host"] {
        assert!(
            daemon
                .docker(&["network", "rm", name])
                .stderr
                .contains("is a pre-defined network and cannot be removed")
        );
    }
    daemon.docker(&["network", "rm", "six", "inside"]).ok();
}

#[test]
fn many_containers_leave_the_host_as_it_was() {
    let (mut daemon, image) = prepared();
    daemon.davit(&["network", "create", "crowd"]).ok();
    let state = daemon.state();
    let namespaces = || fs::read_dir(state.join("netns")).map_or(0, Iterator::count);
    let tag = bridge_tag(&daemon, "crowd");
    let ours = || {
        links()
            .into_iter()
            .filter(|name| name.starts_with(&tag))
            .collect::<BTreeSet<_>>()
    };
    let before = ours();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (daemon, image) = (&daemon, &image);
            scope.spawn(move || {
                for number in 0..13 {
                    let name = format!("n{worker}-{number}");
                    daemon
                        .davit(&[
                            "run",
                            "-d",
                            "--name",
                            &name,
                            "--network",
                            "crowd",
                            "-p",
                            "9",
                            image,
                            "sleep",
                            "1000",
                        ])
                        .ok();
                    daemon.davit(&["rm", "-f", &name]).ok();
                }
            });
        }
    });
    assert_eq!(namespaces(), 0);
    eventually("the links to be those of before", || ours() == before);
    // Nor does a daemon that dies in the middle leave anything.
    for point in [
        "engine.network.after-intent",
        "engine.network.after-namespace",
        "engine.network.after-links",
        "engine.network.after-rules",
    ] {
        daemon.kill9();
        daemon.start_again_with_failpoints(&format!("{point}=1*panic"));
        let _ = daemon.davit(&[
            "run",
            "-d",
            "--name",
            "x",
            "--network",
            "crowd",
            "-p",
            "9",
            &image,
            "sleep",
            "1000",
        ]);
        daemon.crash_and_restart();
        let _ = daemon.davit(&["rm", "-f", "x"]);
        assert_eq!(namespaces(), 0, "{point}");
        eventually("the links to be gone", || {
            ours().iter().all(|name| before.contains(name))
        });
    }
    daemon.davit(&["network", "rm", "crowd"]).ok();
    daemon.stop();
    eventually("all links to be gone", || ours().is_empty());
    daemon.start_again();
}

/// The beginning of the names of all links of this daemon.
fn bridge_tag(daemon: &Daemon, network: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bridge = runtime.block_on(async {
        let request = davit_client::v1::GetNetworkRequest {
            network: network.to_owned(),
        };
        daemon
            .client()
            .networks()
            .get(request)
            .await
            .unwrap()
            .into_inner()
            .bridge
    });
    bridge.split('-').next().unwrap().to_owned()
}

#[test]
fn a_start_on_a_bridge_costs_little_more() {
    let (daemon, image) = prepared();
    let time = |network: &str| {
        let mut best = Duration::MAX;
        for _ in 0..8 {
            let begin = Instant::now();
            let status = daemon
                .davit_command()
                .args(["run", "--rm", "--network", network, &image, "true"])
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
            best = best.min(begin.elapsed());
        }
        best
    };
    let (none, bridge) = (time("none"), time("bridge"));
    println!("none {none:?}, bridge {bridge:?}");
    // Ten milliseconds are the aim of a release build on an idle machine.
    assert!(
        bridge < none + Duration::from_millis(60),
        "none {none:?}, bridge {bridge:?}"
    );
}
