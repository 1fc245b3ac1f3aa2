//! Tests of the samples: files as kernels write them, and this process's own.

use super::*;
use crate::model::BlkioEntry;

#[test]
fn this_process_can_be_measured() {
    let host = HostFacts::detect().unwrap();
    let pid = std::process::id();
    let of = Measured {
        id: "i",
        name: "n",
        pid,
        cgroup_path: "/there-is-no-such-cgroup",
        own_network: true,
    };
    let stats = sample(&host, &of).unwrap();
    assert!(stats.cpu.system_usage > 0 && stats.cpu.online_cpus > 0);
    assert!(stats.memory.limit > 0);
    assert!(!stats.networks.contains_key("lo"));
    let processes = of.cgroup(&host).unwrap().processes().unwrap();
    assert!(processes.contains(&pid));
}

#[test]
fn a_gone_container_is_not_found() {
    let host = HostFacts::detect().unwrap();
    let of = Measured {
        id: "i",
        name: "n",
        pid: u32::MAX,
        cgroup_path: "/there-is-no-such-cgroup",
        own_network: true,
    };
    assert_eq!(
        sample(&host, &of).unwrap_err().kind(),
        davit_store::Kind::NotFound
    );
}

#[test]
fn host_cpu_time() {
    let text = "cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5\n";
    assert_eq!(parse_host_cpu(text, 10), (360, 2));
}

#[test]
fn v2_files() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put(
        "cpu.stat",
        "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 5\n",
    );
    put("memory.current", "4096\n");
    put("memory.max", "max\n");
    put("memory.stat", "anon 100\ninactive_file 7\n");
    put("memory.events", "low 0\nmax 3\n");
    put("pids.current", "2\n");
    put("pids.max", "10\n");
    put(
        "io.stat",
        "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n8:16\n",
    );
    let cgroup = Cgroup::V2(dir.path().to_owned());
    let cpu = cgroup.cpu();
    assert_eq!(
        (cpu.usage_total, cpu.usage_kernel, cpu.throttled_time),
        (30_000, 10_000, 5_000)
    );
    let memory = cgroup.memory();
    assert_eq!(
        (
            memory.usage,
            memory.limit,
            memory.failcnt,
            memory.stats["inactive_file"]
        ),
        (4096, 0, 3, 7)
    );
    assert_eq!(cgroup.pids().limit, 10);
    let expected = BlkioEntry {
        major: 8,
        minor: 0,
        op: "Write".to_owned(),
        value: 2,
    };
    assert_eq!(cgroup.block_io().service_bytes[1], expected);
}

#[test]
fn v1_files() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put("cpuacct.usage", "500\n");
    put("cpuacct.usage_percpu", "200 300 \n");
    put(
        "cpu.stat",
        "nr_periods 1\nnr_throttled 1\nthrottled_time 9\n",
    );
    put("memory.limit_in_bytes", "9223372036854771712\n");
    put("memory.usage_in_bytes", "1\n");
    put("pids.max", "max\n");
    put(
        "blkio.throttle.io_service_bytes",
        "254:0 Read 10\n254:0 Total 10\nTotal 10\n",
    );
    let dirs = ["cpu", "cpuacct", "memory", "pids", "blkio"];
    let cgroup = Cgroup::V1(
        dirs.map(|name| (name.to_owned(), dir.path().to_owned()))
            .to_vec(),
    );
    assert_eq!(cgroup.cpu().usage_per_cpu, [200, 300]);
    assert_eq!(cgroup.cpu().throttled_time, 9);
    assert_eq!(cgroup.memory().limit, 0);
    assert_eq!(cgroup.pids().limit, 0);
    assert_eq!(cgroup.block_io().service_bytes.len(), 2);
}

#[test]
fn interfaces() {
    let text = "Inter-| Receive\n face |bytes\n  lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth0:10 2 3 4 0 0 0 0 20 6 7 8 0 0 0 0\n odd: 1\n";
    let found = network::parse(text);
    assert_eq!(found.len(), 1);
    assert_eq!((found["eth0"].rx_bytes, found["eth0"].tx_dropped), (10, 8));
}
