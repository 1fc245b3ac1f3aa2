//! One rule: expressions that match, and one that decides. Numbers and names
//! are those of linux/netfilter/nf_tables.h.

use std::net::IpAddr;

use super::attribute::Attributes;

/// Register for addresses and everything that is compared.
const FIRST: u32 = 1;
/// Register for ports.
const SECOND: u32 = 2;

const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// Keys of the expression `meta`.
const INPUT_NAME: u32 = 6;
const OUTPUT_NAME: u32 = 7;
const FAMILY: u32 = 15;
const PROTOCOL: u32 = 16;

const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// A rule that is being written: `Rule::new().input("br0").drop()`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rule(Attributes);

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(super) fn expressions(self) -> Attributes {
        self.0
    }

    fn expression(self, name: &str, data: Attributes) -> Self {
        let expression = Attributes::default().text(1, name).nested(2, data);
        Self(self.0.nested(1, expression))
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        let value = Attributes::default().bytes(1, value);
        let data = Attributes::default()
            .u32(1, FIRST)
            .u32(2, operator)
            .nested(3, value);
        self.expression("cmp", data)
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", Attributes::default().u32(1, FIRST).u32(2, key))
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        let data = Attributes::default()
            .u32(1, FIRST)
            .u32(2, base)
            .u32(3, offset)
            .u32(4, length);
        self.expression("payload", data)
    }

    fn mask(self, mask: &[u8]) -> Self {
        let zero = vec![0; mask.len()];
        let length = u32::try_from(mask.len()).unwrap_or(4);
        let data = Attributes::default()
            .u32(1, FIRST)
            .u32(2, FIRST)
            .u32(3, length)
            .nested(4, Attributes::default().bytes(1, mask))
            .nested(5, Attributes::default().bytes(1, &zero));
        self.expression("bitwise", data)
    }

    fn interface(self, key: u32, operator: u32, name: &str) -> Self {
        // The kernel compares all sixteen bytes of a name.
        let mut padded = [0; 16];
        for (to, from) in padded.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        self.meta(key).compare(operator, &padded)
    }

    /// Came in through this interface.
    pub(crate) fn input(self, name: &str) -> Self {
        self.interface(INPUT_NAME, EQUAL, name)
    }

    /// Goes out through this interface.
    pub(crate) fn output(self, name: &str) -> Self {
        self.interface(OUTPUT_NAME, EQUAL, name)
    }

    /// Goes out through another interface.
    pub(crate) fn not_output(self, name: &str) -> Self {
        self.interface(OUTPUT_NAME, UNEQUAL, name)
    }

    fn family(self, address: IpAddr) -> Self {
        let family = if address.is_ipv4() { IPV4 } else { IPV6 };
        self.meta(FAMILY).compare(EQUAL, &[family])
    }

    fn address(self, of_source: bool, network: IpAddr, prefix: u8) -> Self {
        let (offset, bytes) = match network {
            IpAddr::V4(address) => (if of_source { 12 } else { 16 }, address.octets().to_vec()),
            IpAddr::V6(address) => (if of_source { 8 } else { 24 }, address.octets().to_vec()),
        };
        let length = u32::try_from(bytes.len()).unwrap_or(4);
        let mut rule = self.family(network).payload(1, offset, length);
        let mut wanted = bytes;
        if usize::from(prefix) < wanted.len() * 8 {
            let mask: Vec<u8> = (0..wanted.len())
                .map(|at| {
                    let bits = usize::from(prefix).saturating_sub(at * 8).min(8);
                    // Eight bits shifted by eight are none.
                    u8::try_from(0xff00_u16 >> bits & 0xff).unwrap_or(0)
                })
                .collect();
            for (byte, mask) in wanted.iter_mut().zip(&mask) {
                *byte &= mask;
            }
            rule = rule.mask(&mask);
        }
        rule.compare(EQUAL, &wanted)
    }

    /// Comes from an address of this network.
    pub(crate) fn from(self, network: IpAddr, prefix: u8) -> Self {
        self.address(true, network, prefix)
    }

    /// Goes to an address of this network.
    pub(crate) fn to(self, network: IpAddr, prefix: u8) -> Self {
        self.address(false, network, prefix)
    }

    /// Goes to any address of the kind of `like`.
    pub(crate) fn of_family(self, like: IpAddr) -> Self {
        self.family(like)
    }

    /// Goes to an address that is the host's own.
    pub(crate) fn for_the_host(self) -> Self {
        const BY_DESTINATION: u32 = 2;
        const ADDRESS_TYPE: u32 = 3;
        const LOCAL: u32 = 2;
        let data = Attributes::default()
            .u32(1, FIRST)
            .u32(2, ADDRESS_TYPE)
            .u32(3, BY_DESTINATION);
        self.expression("fib", data)
            .compare(EQUAL, &LOCAL.to_ne_bytes())
    }

    /// Is of this protocol (6 is TCP) and goes to this port.
    pub(crate) fn port(self, protocol: u8, port: u16) -> Self {
        self.meta(PROTOCOL)
            .compare(EQUAL, &[protocol])
            .payload(2, 2, 2)
            .compare(EQUAL, &port.to_be_bytes())
    }

    fn connection(self, key: u32, bits: u32) -> Self {
        self.expression("ct", Attributes::default().u32(1, FIRST).u32(2, key))
            .mask(&bits.to_ne_bytes())
            .compare(UNEQUAL, &0_u32.to_ne_bytes())
    }

    /// Belongs to a connection that is known.
    pub(crate) fn established(self) -> Self {
        const STATE: u32 = 0;
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        self.connection(STATE, ESTABLISHED_OR_RELATED)
    }

    /// Belongs to a connection to a published port.
    pub(crate) fn published(self) -> Self {
        const STATUS: u32 = 2;
        const DESTINATION_CHANGED: u32 = 1 << 5;
        self.connection(STATUS, DESTINATION_CHANGED)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let verdict = Attributes::default().u32(1, code.cast_unsigned());
        let verdict = match chain {
            Some(chain) => verdict.text(2, chain),
            None => verdict,
        };
        let data = Attributes::default()
            .u32(1, 0)
            .nested(2, Attributes::default().nested(2, verdict));
        self.expression("immediate", data)
    }

    pub(crate) fn accept(self) -> Self {
        self.verdict(1, None)
    }

    pub(crate) fn drop(self) -> Self {
        self.verdict(0, None)
    }

    /// Goes on in another chain of the table, and comes back.
    pub(crate) fn jump(self, chain: &str) -> Self {
        self.verdict(-3, Some(chain))
    }

    /// Takes the address of the interface that it leaves by.
    pub(crate) fn masquerade(self) -> Self {
        self.expression("masq", Attributes::default())
    }

    /// Goes to this address and port instead.
    pub(crate) fn redirect(self, address: IpAddr, port: u16) -> Self {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let family = if address.is_ipv4() { IPV4 } else { IPV6 };
        let value = |bytes: &[u8]| Attributes::default().bytes(1, bytes);
        let data = Attributes::default()
            .u32(1, 1)
            .u32(2, u32::from(family))
            .u32(3, FIRST)
            .u32(5, SECOND);
        self.expression(
            "immediate",
            Attributes::default().u32(1, FIRST).nested(2, value(&bytes)),
        )
        .expression(
            "immediate",
            Attributes::default()
                .u32(1, SECOND)
                .nested(2, value(&port.to_be_bytes())),
        )
        .expression("nat", data)
    }
}
