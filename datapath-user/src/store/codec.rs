//! The form in which this host writes down its endpoints and reservations: JSON with a version.
//!
//! The only serde form of them. A record of a version that is not known is an error, never a guess.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::model::{
    cluster::{Reservation, Revision},
    endpoint::{self, Addresses, DefaultRoute, Endpoint, EndpointKey, Netns},
};

/// A record in any version there was.
#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum EndpointRecord {
    #[serde(rename = "1")]
    V1(EndpointV1),
}

#[derive(Serialize, Deserialize)]
struct EndpointV1 {
    host: String,
    role: Option<String>,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    mac: String,
    netns: String,
    netns_device: u64,
    netns_inode: u64,
    #[serde(default)]
    netns_cookie: Option<u64>,
    ifname: String,
    link: String,
    default_route: DefaultRouteV1,
    /// Milliseconds since 1970. The first daemons wrote none.
    #[serde(default)]
    attached: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DefaultRouteV1 {
    IfNone,
    Replace,
    Leave,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum ReservationRecord {
    #[serde(rename = "1")]
    V1 { v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, used: u64 },
}

/// The bytes of an endpoint; its key is not among them.
pub(super) fn encode_endpoint(endpoint: &Endpoint) -> Result<Vec<u8>> {
    let Endpoint { key, host, role, addresses, mac, netns, ifname, link, default_route, attached } = endpoint;
    let record = EndpointRecord::V1(EndpointV1 {
        host: host.to_string(),
        role: role.as_ref().map(ToString::to_string),
        v4: addresses.v4,
        v6: addresses.v6,
        mac: mac.to_string(),
        netns: netns.path.as_str().to_owned(),
        netns_device: netns.device,
        netns_inode: netns.inode,
        netns_cookie: netns.cookie,
        ifname: ifname.to_string(),
        link: link.to_string(),
        default_route: match default_route {
            DefaultRoute::IfNone => DefaultRouteV1::IfNone,
            DefaultRoute::Replace => DefaultRouteV1::Replace,
            DefaultRoute::Leave => DefaultRouteV1::Leave,
        },
        attached: attached.and_then(|time| u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()),
    });
    serde_json::to_vec(&record).with_context(|| format!("encode endpoint {key}"))
}

/// The endpoint that was written under `key`.
pub(super) fn decode_endpoint(key: &str, bytes: &[u8]) -> Result<Endpoint> {
    let decode = || {
        let EndpointRecord::V1(record) = serde_json::from_slice(bytes)?;
        let key: EndpointKey = key.parse()?;
        anyhow::Ok(Endpoint {
            key,
            host: record.host.parse()?,
            role: record.role.map(|role| role.parse()).transpose()?,
            addresses: Addresses { v4: record.v4, v6: record.v6 },
            mac: endpoint::mac(&record.mac)?,
            netns: Netns {
                path: record.netns.parse()?,
                device: record.netns_device,
                inode: record.netns_inode,
                cookie: record.netns_cookie,
            },
            ifname: record.ifname.parse()?,
            link: record.link.parse()?,
            default_route: match record.default_route {
                DefaultRouteV1::IfNone => DefaultRoute::IfNone,
                DefaultRouteV1::Replace => DefaultRoute::Replace,
                DefaultRouteV1::Leave => DefaultRoute::Leave,
            },
            attached: record.attached.map(|millis| UNIX_EPOCH + Duration::from_millis(millis)),
        })
    };
    decode().with_context(|| format!("decode endpoint {}", key.escape_debug()))
}

/// The bytes of a reservation; its key is not among them.
pub(super) fn encode_reservation(key: &EndpointKey, reservation: &Reservation) -> Result<Vec<u8>> {
    let Reservation { addresses: Addresses { v4, v6 }, used: Revision(used) } = *reservation;
    serde_json::to_vec(&ReservationRecord::V1 { v4, v6, used }).with_context(|| format!("encode reservation {key}"))
}

/// The reservation that was written under `key`.
pub(super) fn decode_reservation(key: &str, bytes: &[u8]) -> Result<(EndpointKey, Reservation)> {
    let decode = || {
        let ReservationRecord::V1 { v4, v6, used } = serde_json::from_slice(bytes)?;
        anyhow::Ok((key.parse()?, Reservation { addresses: Addresses { v4, v6 }, used: Revision(used) }))
    };
    decode().with_context(|| format!("decode reservation {}", key.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example;

    #[test]
    fn endpoints_round_trip() {
        let mut endpoints: Vec<Endpoint> =
            example::cluster().endpoints.values().map(|endpoint| endpoint.as_ref().clone()).collect();
        let mut other = endpoints[0].clone();
        other.role = None;
        other.addresses.v4 = None;
        other.default_route = DefaultRoute::Replace;
        other.netns.inode = u64::MAX;
        other.netns.cookie = None;
        other.attached = Some(UNIX_EPOCH + Duration::from_millis(1_795_266_660_123));
        endpoints.push(other);
        for endpoint in endpoints {
            let bytes = encode_endpoint(&endpoint).unwrap();
            assert_eq!(decode_endpoint(&endpoint.key.to_string(), &bytes).unwrap(), endpoint);
        }
    }

    #[test]
    fn reservations_round_trip() {
        let addresses = ["10.1.1.2", "fd00::2"].map(|text| text.parse().unwrap()).into_iter().collect();
        for reservation in [
            Reservation { addresses, used: Revision(u64::MAX) },
            Reservation { addresses: Addresses::default(), used: Revision(0) },
        ] {
            let key: EndpointKey = "shop/web-1".parse().unwrap();
            let bytes = encode_reservation(&key, &reservation).unwrap();
            assert_eq!(decode_reservation("shop/web-1", &bytes).unwrap(), (key, reservation));
        }
    }

    /// What version 1 wrote is read for ever.
    #[test]
    fn the_first_version_is_read() {
        let bytes = br#"{"version":"1","host":"h1","role":"web","v4":"10.1.1.2","v6":null,"mac":"02:00:00:00:00:01","netns":"/run/netns/x",
            "netns_device":4,"netns_inode":5,"ifname":"eth0","link":"weftabc","default_route":"if-none"}"#;
        let endpoint = decode_endpoint("shop/web-1", bytes).unwrap();
        assert_eq!((endpoint.link.to_string(), endpoint.netns.inode), ("weftabc".to_owned(), 5));
        assert_eq!(endpoint.attached, None);
        decode_reservation("shop/web-1", br#"{"version":"1","v4":"10.1.1.2","v6":null,"used":7}"#).unwrap();
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_it() {
        for bytes in [&b"{\"version\":\"2\"}"[..], b"", b"{}", b"\xff", br#"{"version":"1","host":"h1"}"#] {
            let error = format!("{:#}", decode_endpoint("shop/web-1", bytes).unwrap_err());
            assert!(error.starts_with("decode endpoint shop/web-1: "), "{error}");
        }
        decode_reservation("shop", br#"{"version":"1","v4":null,"v6":null,"used":7}"#).unwrap_err();
    }
}
