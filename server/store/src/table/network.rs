//! Networks that containers may join: what was asked for when they were made.
//! Who is on them is not in here: that is derived from the containers that
//! run.

use crate::{record::sparse, table::Table};
use jiff::Timestamp;
use std::collections::BTreeMap;

sparse! {
    /// One network.
    pub struct NetworkRecord {
        /// Id, 64 hex digits.
        pub id: String,
        /// Name, unique in its namespace.
        pub name: String,
        /// Driver, "bridge".
        pub driver: String,
        /// Nothing outside is reached from it, and it from nowhere outside.
        pub internal: bool,
        /// Containers have IPv6 addresses, too.
        pub enable_ipv6: bool,
        /// Echoed by inspect.
        pub attachable: bool,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Options for the driver.
        pub options: BTreeMap<String, String>,
        /// IPv4 first.
        pub subnets: Vec<SubnetRecord>,
        /// Name of the bridge on the host.
        pub bridge: String,
        /// When it was made.
        pub created_at: Timestamp,
    }

    /// One subnet of a network.
    pub struct SubnetRecord {
        /// "172.18.0.0/16".
        pub subnet: String,
        /// The bridge's own address.
        pub gateway: String,
        /// Part of the subnet that addresses are taken from; all when empty.
        pub ip_range: String,
        /// Addresses that no container gets, by what they are for.
        pub auxiliary: BTreeMap<String, String>,
        /// It was picked by the daemon, so it may be picked again.
        pub automatic: bool,
    }
}

/// Networks, by (namespace, id). The default network is in the namespace "".
#[derive(Debug)]
pub enum Networks {}

impl Table for Networks {
    const NAME: &'static str = "networks";
    type Key = (String, String);
    type Record = NetworkRecord;
}
