//! Container options, limits, policies: davit.v1's form and ours.

use davit_proto::v1;
use davit_store::{image_config, options};

pub(in super::super) fn from_options(from: v1::ContainerOptions) -> options::ContainerOptions {
    options::ContainerOptions {
        args: from.args_set.then_some(from.args),
        entrypoint: from.entrypoint_set.then_some(from.entrypoint),
        env: from.env,
        working_dir: from.working_dir,
        user: from.user,
        group_add: from.group_add,
        hostname: from.hostname,
        domainname: from.domainname,
        tty: from.tty,
        open_stdin: from.open_stdin,
        stdin_once: from.stdin_once,
        attach_stdin: from.attach_stdin,
        attach_stdout: from.attach_stdout,
        attach_stderr: from.attach_stderr,
        labels: from.labels.into_iter().collect(),
        mounts: from.mounts.into_iter().map(from_mount).collect(),
        devices: from.devices.into_iter().map(from_device).collect(),
        device_cgroup_rules: from.device_cgroup_rules,
        cap_add: from.cap_add,
        cap_drop: from.cap_drop,
        privileged: from.privileged,
        read_only: from.read_only,
        security_opt: from.security_opt,
        masked_paths: from.paths_set.then_some(from.masked_paths),
        readonly_paths: from.paths_set.then_some(from.readonly_paths),
        resources: from.resources.map(from_resources).unwrap_or_default(),
        ulimits: from.ulimits.into_iter().map(from_ulimit).collect(),
        pid_mode: from.pid_mode,
        ipc_mode: from.ipc_mode,
        uts_mode: from.uts_mode,
        network_mode: from.network_mode,
        userns_mode: from.userns_mode,
        cgroupns_mode: from.cgroupns_mode,
        cgroup_parent: from.cgroup_parent,
        sysctls: from.sysctls.into_iter().collect(),
        init: from.init,
        oom_score_adj: from.oom_score_adj,
        oom_kill_disable: from.oom_kill_disable,
        stop_signal: from.stop_signal,
        stop_timeout: from.stop_timeout_set.then_some(from.stop_timeout),
        restart_policy: from
            .restart_policy
            .map(from_restart_policy)
            .unwrap_or_default(),
        healthcheck: from.healthcheck.map(from_health_check),
        auto_remove: from.auto_remove,
        runtime: from.runtime,
        shm_size: from.shm_size,
        tmpfs: from.tmpfs.into_iter().collect(),
        extra_hosts: from.extra_hosts,
        dns: from.dns,
        dns_search: from.dns_search,
        dns_options: from.dns_options,
        log: from.log.map(from_log).unwrap_or_default(),
        terminal_size: from.terminal_size.map(from_terminal_size),
        binds: from.binds,
        annotations: from.annotations.into_iter().collect(),
        volumes_from: from.volumes_from,
        ports: from.ports.into_iter().map(from_port).collect(),
        exposed_ports: from.exposed_ports,
        publish_all_ports: from.publish_all_ports,
        volumes: from.volumes,
        mac_address: from.mac_address,
        networks: from
            .networks
            .into_iter()
            .map(|(name, network)| (name, from_network(network)))
            .collect(),
        links: from.links,
        shell: from.shell,
        opaque: from.opaque.to_vec(),
        volume_driver: from.volume_driver,
    }
}

pub(in super::super) fn to_options(from: options::ContainerOptions) -> v1::ContainerOptions {
    v1::ContainerOptions {
        args_set: from.args.is_some(),
        args: from.args.unwrap_or_default(),
        entrypoint_set: from.entrypoint.is_some(),
        entrypoint: from.entrypoint.unwrap_or_default(),
        env: from.env,
        working_dir: from.working_dir,
        user: from.user,
        group_add: from.group_add,
        hostname: from.hostname,
        domainname: from.domainname,
        tty: from.tty,
        open_stdin: from.open_stdin,
        stdin_once: from.stdin_once,
        attach_stdin: from.attach_stdin,
        attach_stdout: from.attach_stdout,
        attach_stderr: from.attach_stderr,
        labels: from.labels.into_iter().collect(),
        mounts: from.mounts.into_iter().map(to_mount).collect(),
        devices: from.devices.into_iter().map(to_device).collect(),
        device_cgroup_rules: from.device_cgroup_rules,
        cap_add: from.cap_add,
        cap_drop: from.cap_drop,
        privileged: from.privileged,
        read_only: from.read_only,
        security_opt: from.security_opt,
        paths_set: from.masked_paths.is_some() || from.readonly_paths.is_some(),
        masked_paths: from.masked_paths.unwrap_or_default(),
        readonly_paths: from.readonly_paths.unwrap_or_default(),
        resources: Some(to_resources(from.resources)),
        ulimits: from.ulimits.into_iter().map(to_ulimit).collect(),
        pid_mode: from.pid_mode,
        ipc_mode: from.ipc_mode,
        uts_mode: from.uts_mode,
        network_mode: from.network_mode,
        userns_mode: from.userns_mode,
        cgroupns_mode: from.cgroupns_mode,
        cgroup_parent: from.cgroup_parent,
        sysctls: from.sysctls.into_iter().collect(),
        init: from.init,
        oom_score_adj: from.oom_score_adj,
        oom_kill_disable: from.oom_kill_disable,
        stop_signal: from.stop_signal,
        stop_timeout_set: from.stop_timeout.is_some(),
        stop_timeout: from.stop_timeout.unwrap_or_default(),
        restart_policy: Some(to_restart_policy(from.restart_policy)),
        healthcheck: from.healthcheck.map(to_health_check),
        auto_remove: from.auto_remove,
        runtime: from.runtime,
        shm_size: from.shm_size,
        tmpfs: from.tmpfs.into_iter().collect(),
        extra_hosts: from.extra_hosts,
        dns: from.dns,
        dns_search: from.dns_search,
        dns_options: from.dns_options,
        log: Some(v1::LogConfig {
            driver: from.log.driver,
            options: from.log.options.into_iter().collect(),
        }),
        terminal_size: from.terminal_size.map(to_terminal_size),
        binds: from.binds,
        annotations: from.annotations.into_iter().collect(),
        volumes_from: from.volumes_from,
        ports: from.ports.into_iter().map(to_port).collect(),
        exposed_ports: from.exposed_ports,
        publish_all_ports: from.publish_all_ports,
        volumes: from.volumes,
        mac_address: from.mac_address,
        networks: from
            .networks
            .into_iter()
            .map(|(name, network)| (name, to_network(network)))
            .collect(),
        links: from.links,
        shell: from.shell,
        opaque: from.opaque.into(),
        volume_driver: from.volume_driver,
    }
}

pub(in super::super) fn from_resources(from: v1::Resources) -> options::Resources {
    let throttle = |list: Vec<v1::ThrottleDevice>| -> Vec<options::ThrottleDevice> {
        list.into_iter()
            .map(|device| options::ThrottleDevice {
                path: device.path,
                rate: device.rate,
            })
            .collect()
    };
    options::Resources {
        memory: from.memory,
        memory_swap: from.memory_swap,
        memory_reservation: from.memory_reservation,
        memory_swappiness: from.memory_swappiness_set.then_some(from.memory_swappiness),
        kernel_memory: from.kernel_memory,
        nano_cpus: from.nano_cpus,
        cpu_shares: from.cpu_shares,
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpu_rt_period: from.cpu_rt_period,
        cpu_rt_runtime: from.cpu_rt_runtime,
        cpuset_cpus: from.cpuset_cpus,
        cpuset_mems: from.cpuset_mems,
        pids_limit: from.pids_limit,
        blkio_weight: from.blkio_weight,
        blkio_weight_device: from
            .blkio_weight_device
            .into_iter()
            .map(|device| options::WeightDevice {
                path: device.path,
                weight: device.weight,
            })
            .collect(),
        blkio_device_read_bps: throttle(from.blkio_device_read_bps),
        blkio_device_write_bps: throttle(from.blkio_device_write_bps),
        blkio_device_read_iops: throttle(from.blkio_device_read_iops),
        blkio_device_write_iops: throttle(from.blkio_device_write_iops),
    }
}

fn to_resources(from: options::Resources) -> v1::Resources {
    let throttle = |list: Vec<options::ThrottleDevice>| -> Vec<v1::ThrottleDevice> {
        list.into_iter()
            .map(|device| v1::ThrottleDevice {
                path: device.path,
                rate: device.rate,
            })
            .collect()
    };
    v1::Resources {
        memory: from.memory,
        memory_swap: from.memory_swap,
        memory_reservation: from.memory_reservation,
        memory_swappiness_set: from.memory_swappiness.is_some(),
        memory_swappiness: from.memory_swappiness.unwrap_or_default(),
        kernel_memory: from.kernel_memory,
        nano_cpus: from.nano_cpus,
        cpu_shares: from.cpu_shares,
        cpu_period: from.cpu_period,
        cpu_quota: from.cpu_quota,
        cpu_rt_period: from.cpu_rt_period,
        cpu_rt_runtime: from.cpu_rt_runtime,
        cpuset_cpus: from.cpuset_cpus,
        cpuset_mems: from.cpuset_mems,
        pids_limit: from.pids_limit,
        blkio_weight: from.blkio_weight,
        blkio_weight_device: from
            .blkio_weight_device
            .into_iter()
            .map(|device| v1::WeightDevice {
                path: device.path,
                weight: device.weight,
            })
            .collect(),
        blkio_device_read_bps: throttle(from.blkio_device_read_bps),
        blkio_device_write_bps: throttle(from.blkio_device_write_bps),
        blkio_device_read_iops: throttle(from.blkio_device_read_iops),
        blkio_device_write_iops: throttle(from.blkio_device_write_iops),
    }
}

pub(in super::super) fn from_restart_policy(from: v1::RestartPolicy) -> options::RestartPolicy {
    options::RestartPolicy {
        name: from.name,
        maximum_retry_count: from.maximum_retry_count,
    }
}

fn to_restart_policy(from: options::RestartPolicy) -> v1::RestartPolicy {
    v1::RestartPolicy {
        name: from.name,
        maximum_retry_count: from.maximum_retry_count,
    }
}

pub(in super::super) fn from_health_check(from: v1::HealthCheck) -> image_config::HealthCheck {
    image_config::HealthCheck {
        test: from.test,
        interval_ns: from.interval_ns,
        timeout_ns: from.timeout_ns,
        retries: from.retries,
        start_period_ns: from.start_period_ns,
        start_interval_ns: from.start_interval_ns,
    }
}

pub(in super::super) fn to_health_check(from: image_config::HealthCheck) -> v1::HealthCheck {
    v1::HealthCheck {
        test: from.test,
        interval_ns: from.interval_ns,
        timeout_ns: from.timeout_ns,
        retries: from.retries,
        start_period_ns: from.start_period_ns,
        start_interval_ns: from.start_interval_ns,
    }
}

pub(in super::super) fn from_terminal_size(from: v1::TerminalSize) -> options::TerminalSize {
    options::TerminalSize {
        width: from.width,
        height: from.height,
    }
}

fn to_terminal_size(from: options::TerminalSize) -> v1::TerminalSize {
    v1::TerminalSize {
        width: from.width,
        height: from.height,
    }
}

pub(in super::super) fn from_exec_options(from: v1::ExecOptions) -> options::ExecOptions {
    options::ExecOptions {
        args: from.args,
        env: from.env,
        working_dir: from.working_dir,
        user: from.user,
        tty: from.tty,
        attach_stdin: from.attach_stdin,
        attach_stdout: from.attach_stdout,
        attach_stderr: from.attach_stderr,
        privileged: from.privileged,
        detach_keys: from.detach_keys,
        terminal_size: from.terminal_size.map(from_terminal_size),
    }
}

pub(in super::super) fn to_exec_options(from: options::ExecOptions) -> v1::ExecOptions {
    v1::ExecOptions {
        args: from.args,
        env: from.env,
        working_dir: from.working_dir,
        user: from.user,
        tty: from.tty,
        attach_stdin: from.attach_stdin,
        attach_stdout: from.attach_stdout,
        attach_stderr: from.attach_stderr,
        privileged: from.privileged,
        detach_keys: from.detach_keys,
        terminal_size: from.terminal_size.map(to_terminal_size),
    }
}

fn from_log(from: v1::LogConfig) -> options::LogConfig {
    options::LogConfig {
        driver: from.driver,
        options: from.options.into_iter().collect(),
    }
}

fn from_mount(from: v1::Mount) -> options::Mount {
    options::Mount {
        kind: from.r#type,
        source: from.source,
        target: from.target,
        read_only: from.read_only,
        propagation: from.propagation,
        non_recursive: from.non_recursive,
        create_source: from.create_source,
        tmpfs_size: from.tmpfs_size,
        tmpfs_mode: from.tmpfs_mode,
        options: from.options,
        subpath: from.subpath,
        no_copy: from.no_copy,
        volume_labels: from.volume_labels.into_iter().collect(),
        volume_driver: from.volume_driver,
        volume_options: from.volume_options.into_iter().collect(),
        consistency: from.consistency,
        must_exist: from.must_exist,
    }
}

fn to_mount(from: options::Mount) -> v1::Mount {
    v1::Mount {
        r#type: from.kind,
        source: from.source,
        target: from.target,
        read_only: from.read_only,
        propagation: from.propagation,
        non_recursive: from.non_recursive,
        create_source: from.create_source,
        tmpfs_size: from.tmpfs_size,
        tmpfs_mode: from.tmpfs_mode,
        options: from.options,
        subpath: from.subpath,
        no_copy: from.no_copy,
        volume_labels: from.volume_labels.into_iter().collect(),
        volume_driver: from.volume_driver,
        volume_options: from.volume_options.into_iter().collect(),
        consistency: from.consistency,
        must_exist: from.must_exist,
    }
}

fn from_device(from: v1::Device) -> options::Device {
    options::Device {
        host_path: from.host_path,
        container_path: from.container_path,
        permissions: from.permissions,
    }
}

fn to_device(from: options::Device) -> v1::Device {
    v1::Device {
        host_path: from.host_path,
        container_path: from.container_path,
        permissions: from.permissions,
    }
}

fn from_ulimit(from: v1::Ulimit) -> options::Ulimit {
    options::Ulimit {
        name: from.name,
        soft: from.soft,
        hard: from.hard,
    }
}

fn to_ulimit(from: options::Ulimit) -> v1::Ulimit {
    v1::Ulimit {
        name: from.name,
        soft: from.soft,
        hard: from.hard,
    }
}

fn from_port(from: v1::PortBinding) -> options::PortBinding {
    options::PortBinding {
        container_port: from.container_port,
        protocol: from.protocol,
        host_ip: from.host_ip,
        host_port: from.host_port,
    }
}

fn to_port(from: options::PortBinding) -> v1::PortBinding {
    v1::PortBinding {
        container_port: from.container_port,
        protocol: from.protocol,
        host_ip: from.host_ip,
        host_port: from.host_port,
    }
}

pub(in super::super) fn from_network(from: v1::NetworkAttachment) -> options::NetworkAttachment {
    options::NetworkAttachment {
        aliases: from.aliases,
        ipv4_address: from.ipv4_address,
        ipv6_address: from.ipv6_address,
        links: from.links,
        driver_opts: from.driver_opts.into_iter().collect(),
        mac_address: from.mac_address,
        link_local_ips: from.link_local_ips,
        gw_priority: from.gw_priority,
    }
}

pub(super) fn to_network(from: options::NetworkAttachment) -> v1::NetworkAttachment {
    v1::NetworkAttachment {
        aliases: from.aliases,
        ipv4_address: from.ipv4_address,
        ipv6_address: from.ipv6_address,
        links: from.links,
        driver_opts: from.driver_opts.into_iter().collect(),
        mac_address: from.mac_address,
        link_local_ips: from.link_local_ips,
        gw_priority: from.gw_priority,
    }
}
