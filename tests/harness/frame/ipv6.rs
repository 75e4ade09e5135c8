//! IPv6 extension headers, in any order and number: also those that no honest sender makes.

/// An extension header. The next-header fields are filled in when the packet is put together.
#[derive(Clone, Debug)]
pub enum Extension {
    /// Options for every router (number 0): type, length, value, one after the other. Padded to eight bytes.
    HopByHop(Vec<u8>),
    /// Options for the destination (number 60), padded likewise.
    DestinationOptions(Vec<u8>),
    /// The way to go (number 43). The checksums of the packet are made for the address in its header.
    Routing {
        /// 0 and 2 are source routes, 4 is segment routing.
        kind: u8,
        /// Addresses still to be visited.
        segments_left: u8,
        /// What follows the four fixed bytes, padded with zeros.
        data: Vec<u8>,
    },
    /// This packet is a part (number 44).
    Fragment {
        /// Where it belongs, in units of eight bytes.
        offset: u16,
        /// Whether more parts follow.
        more: bool,
        /// What the parts of one packet have in common.
        identification: u32,
    },
    /// A header of any other number, whose second byte is its length as in the options headers.
    Other(u8, Vec<u8>),
}

/// A router alert, the option that a hop-by-hop header most often has (RFC 2711).
pub const ROUTER_ALERT: [u8; 4] = [5, 2, 0, 0];

impl Extension {
    /// A fragment header that says the packet is whole (RFC 6946).
    pub const ATOMIC_FRAGMENT: Self = Self::Fragment { offset: 0, more: false, identification: 7 };

    /// The number by which the header before it names it.
    pub fn number(&self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing { .. } => 43,
            Self::Fragment { .. } => 44,
            Self::DestinationOptions(_) => 60,
            Self::Other(number, _) => *number,
        }
    }

    fn bytes(&self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(options) | Self::DestinationOptions(options) => {
                let missing = (options.len() + 2).next_multiple_of(8) - options.len() - 2;
                // Pad1 is a zero; PadN is a one, the number of zeros, and the zeros.
                let padding = match u8::try_from(missing).expect("less than eight") {
                    0 => vec![],
                    1 => vec![0],
                    more => [vec![1, more - 2], vec![0; missing - 2]].concat(),
                };
                counted(next, &[&options[..], &padding].concat())
            }
            Self::Routing { kind, segments_left, data } => {
                counted(next, &[&[*kind, *segments_left][..], data].concat())
            }
            Self::Fragment { offset, more, identification } => {
                let place = (offset << 3) | u16::from(*more);
                [&[next, 0][..], &place.to_be_bytes(), &identification.to_be_bytes()].concat()
            }
            Self::Other(_, data) => counted(next, data),
        }
    }
}

/// The number of the first header and the bytes of all, when `last` is what follows them.
pub(super) fn chain(extensions: &[Extension], last: u8) -> (u8, Vec<u8>) {
    extensions.iter().rev().fold((last, Vec::new()), |(next, rest), extension| {
        (extension.number(), [extension.bytes(next), rest].concat())
    })
}

/// Next header, length in units of eight bytes without the first, and the data with zeros up to that length.
fn counted(next: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() + 2).next_multiple_of(8);
    let mut bytes = [&[next, u8::try_from(length / 8 - 1).expect("at most 2048 bytes")], data].concat();
    bytes.resize(length, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::stations::PAIRS;
    use crate::frame::tcp;

    #[test]
    fn a_chain_is_read_header_by_header() {
        let [_, [a, b]] = PAIRS;
        let packet = tcp(a, b)
            .extension(Extension::HopByHop(ROUTER_ALERT.to_vec()))
            .extension(Extension::DestinationOptions(vec![]))
            .extension(Extension::Routing { kind: 4, segments_left: 0, data: vec![0; 20] })
            .extension(Extension::ATOMIC_FRAGMENT);
        let read = packet.syn().decode();
        assert_eq!(read.ip().extensions, [0, 60, 43, 44]);
        assert_eq!((read.faults.len(), read.ports()), (0, Some((40000, 80))), "{read}");
    }

    #[test]
    fn a_header_that_nobody_knows_ends_the_reading() {
        let [_, [a, b]] = PAIRS;
        let read = tcp(a, b).extension(Extension::Other(253, vec![1, 2, 3])).syn().decode();
        assert_eq!((read.ip().protocol, read.ports()), (253, None));
    }

    #[test]
    fn hop_by_hop_options_after_another_header_are_a_fault() {
        let [_, [a, b]] = PAIRS;
        let swapped = [Extension::DestinationOptions(vec![]), Extension::HopByHop(vec![])];
        let read = swapped.into_iter().fold(tcp(a, b), super::super::packet::Packet::extension).syn().decode();
        assert_eq!(read.faults.len(), 1, "{read}");
    }

    #[test]
    fn options_are_padded_to_eight_bytes() {
        for length in 0..20 {
            let bytes = Extension::HopByHop(vec![0; length]).bytes(59);
            assert_eq!((bytes.len() % 8, usize::from(bytes[1])), (0, bytes.len() / 8 - 1));
        }
    }
}
