//! Attach and detach: an endpoint is written down, and the caller is answered when its packets pass.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::SystemTime};

use crate::front::api::{
    dto::{
        endpoints::{Attach, Attached, Detach, Detached, Endpoint as Shown, EndpointList, Gone, Relabel, Relabelled},
        naming::{Detachable, Target},
        side::State,
    },
    refusal::{Kind, Refusal},
};
use crate::kernel::{
    inside::free_name,
    netns::{self, Netns},
};
use crate::model::{
    allocate::{AllocateError, allocate},
    cluster::Cluster,
    endpoint::{self, Addresses, Endpoint, EndpointKey},
    labels::Labels,
    name::{AppName, EndpointName, LinkName, RoleName},
    prefix::Family,
    traffic::NamedPorts,
};
use crate::status::EndpointState;
use crate::store::change::Change;

use super::Service;

/// Where an endpoint is to be.
struct Place<'a> {
    netns: &'a Netns,
    place: endpoint::Netns,
    /// The endpoint that had the name.
    before: Option<&'a Endpoint>,
}

impl Service {
    pub(super) async fn do_attach(&self, request: Attach) -> Result<Attached, Refusal> {
        let turn = self.attaching.lock().await;
        let netns = open(&request.target)?;
        let place = place(&netns, &request.target)?;
        if netns.id()? == Netns::current()?.id()? {
            return Err(Refusal::invalid("that is this host's own network namespace: name a container's"));
        }
        let name = match &request.name {
            Some(name) => name.clone(),
            None => default_name(&request.target, &place)?,
        };
        let key = EndpointKey::new(request.app.clone(), name);
        let role = self.role(&request.app, request.role.as_ref(), (&request.labels, &request.ports)).await?;
        let cluster = self.snapshot().cluster.clone();
        let before = cluster.endpoints.get(&key);
        let is_there = |before: &Endpoint| before.netns.path == place.path && before.netns.is_same(&place);
        let was_there = before.is_some_and(|before| is_there(before));
        if let Some(before) = before.filter(|before| !is_there(before) && is_alive(&before.netns)) {
            let path = before.netns.path.as_str();
            return Err(Refusal::conflict(format!(
                "endpoint {key} is in {path}: detach it first, or give another --name"
            )));
        }
        let endpoint = match before.filter(|_| was_there) {
            Some(before) if role == before.role && asks_nothing_else(&request, before) => (**before).clone(),
            before => {
                let place = Place { netns: &netns, place, before: before.map(AsRef::as_ref) };
                Endpoint { role, ..self.endpoint(&request, &cluster, key.clone(), place)? }
            }
        };
        let revision = self.change(Change::PutEndpoint(endpoint.clone())).await?;
        drop(turn);
        let ready = self.board.wait(self.patience, |status| {
            status.revision >= revision.0 && status.endpoints.contains_key(&endpoint.key)
        });
        let why = match ready.await.map(|status| status.endpoints.get(&endpoint.key).cloned()) {
            Some(Some(EndpointState::Ready)) => return Ok(attached(&cluster, &endpoint, &self.host, was_there)),
            Some(Some(EndpointState::Failed(why))) => why,
            Some(None) => "its namespace is gone".to_owned(),
            None => format!("it took more than {} s", self.patience.as_secs()),
        };
        if !was_there {
            self.change(Change::RemoveEndpoint(endpoint.key.clone())).await?;
        }
        Err(Refusal::new(Kind::Unavailable, format!("attach {}: {why}; nothing is attached", endpoint.key)))
    }

    fn endpoint(
        &self,
        request: &Attach,
        cluster: &Cluster,
        key: EndpointKey,
        Place { netns, place, before }: Place<'_>,
    ) -> Result<Endpoint, Refusal> {
        let ifname = match (&request.ifname, before) {
            (Some(ifname), _) => ifname.clone(),
            (None, Some(before)) => before.ifname.clone(),
            (None, None) => free_name(netns)?.parse()?,
        };
        // What is there already stays attached since then, whatever is changed of it.
        let attached = before.filter(|before| before.netns == place).and_then(|before| before.attached);
        Ok(Endpoint {
            addresses: self.addresses(cluster, &key, request.ips)?,
            mac: request.mac.unwrap_or_else(|| Endpoint::mac_of(&key.app, &key.name)),
            link: LinkName::of(&key.app, &key.name),
            host: self.host.clone(),
            role: None,
            netns: place,
            ifname,
            default_route: request.gateway.default_route(),
            attached: Some(attached.unwrap_or_else(SystemTime::now)),
            key,
        })
    }

    /// The role of an endpoint that is labelled so. Where the app has none for just these labels and ports, it gets one;
    /// a role that is only named has to be there.
    async fn role(
        &self,
        app: &AppName,
        role: Option<&RoleName>,
        (labels, ports): (&Labels, &NamedPorts),
    ) -> Result<Option<RoleName>, Refusal> {
        let mut labels = labels.clone();
        // What another host has just made is there too.
        let cluster = self.store.latest().await?.cluster.clone();
        // An app that is not there is refused with everything else.
        let Some(app) = cluster.apps.get(app) else { return Ok(role.cloned()) };
        if let Some(role) = role {
            let called = app.roles.iter().find(|(own, known)| known.is_called(own, role));
            let (_, known) = called.ok_or_else(|| {
                let names: Vec<_> = app.roles.keys().map(ToString::to_string).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Refusal::not_found(format!("app {} has no role {role}: its roles are {names}", app.name))
            })?;
            if labels.is_empty() && ports.is_empty() {
                return Ok(Some(role.clone()));
            }
            for (key, value) in known.labels.iter().filter(|(key, _)| labels.get(key).is_none()).collect::<Vec<_>>() {
                labels.set(key.clone(), value.clone());
            }
        }
        if labels.is_empty() && ports.is_empty() {
            return Ok(None);
        }
        if let Some(there) = app.role_of(&labels, ports) {
            return Ok(Some(there.clone()));
        }
        let (app, ports) = (app.name.clone(), ports.clone());
        let make = move |cluster: &Cluster| {
            let known = cluster.apps.get(&app).ok_or_else(|| Refusal::no_app(&app))?;
            let there = known.role_of(&labels, &ports).and_then(|name| known.roles.get_key_value(name));
            let there = there.map(|(name, role)| (name.clone(), role.clone()));
            let full = || Refusal::new(Kind::Exhausted, format!("app {app} has no number left for another role"));
            let (name, role) = there.or_else(|| known.make_role(&labels, &ports)).ok_or_else(full)?;
            Ok((Change::AddRole(app.clone(), name.clone(), role), name))
        };
        let (_, name) = self.change_by(make).await?;
        Ok(Some(name))
    }

    pub(super) async fn do_relabel(&self, request: Relabel) -> Result<Relabelled, Refusal> {
        let turn = self.attaching.lock().await;
        let Relabel { endpoint: key, set, unset } = request;
        let cluster = self.store.latest().await?.cluster.clone();
        let unknown = || Refusal::not_found(format!("there is no endpoint {key} on this host: see weft ps"));
        let before = cluster.endpoints.get(&key).filter(|endpoint| endpoint.host == self.host).ok_or_else(unknown)?;
        let role = before.role.as_ref().and_then(|role| cluster.apps.get(&key.app)?.roles.get(role));
        let mut labels = role.map(|role| role.labels.clone()).unwrap_or_default();
        let ports = role.map(|role| role.ports.clone()).unwrap_or_default();
        labels.change(&set, &unset);
        let role = self.role(&key.app, None, (&labels, &ports)).await?;
        let changed = role != before.role;
        let endpoint = Endpoint { role, ..before.as_ref().clone() };
        let revision = self.change(Change::PutEndpoint(endpoint.clone())).await?;
        drop(turn);
        let in_force = self.reached(revision).await;
        Ok(Relabelled {
            name: key.name.to_string(),
            app: key.app.to_string(),
            role: endpoint.role.map(|role| role.to_string()),
            labels: labels.to_string(),
            changed,
            revision: revision.0,
            in_force,
        })
    }

    fn addresses(&self, cluster: &Cluster, key: &EndpointKey, wanted: Addresses) -> Result<Addresses, Refusal> {
        let allocate = |wanted| allocate(cluster, &self.host, key, wanted).map_err(|error| refuse(&error));
        let mut addresses = allocate(wanted.iter().next())?;
        for other in wanted.iter().skip(1) {
            let chosen = allocate(Some(other))?.of(Family::of(other));
            addresses = chosen.map_or(addresses, |chosen| addresses.with(chosen));
        }
        Ok(addresses)
    }

    pub(super) async fn do_detach(&self, request: Detach) -> Result<Detached, Refusal> {
        let cluster = self.snapshot().cluster.clone();
        let here = || cluster.endpoints_on(&self.host);
        let in_app = |endpoint: &&Endpoint| request.app.as_ref().is_none_or(|app| *app == endpoint.key.app);
        let chosen: Vec<Endpoint> = match &request.what {
            Detachable::Endpoint(key) => here().filter(|endpoint| endpoint.key == *key).cloned().collect(),
            Detachable::Target(target) => {
                let name = match target {
                    Target::Name(name) => name.as_str().parse::<EndpointName>().ok(),
                    Target::Pid(_) | Target::Path(_) => None,
                };
                // The namespace may be gone while its endpoint is still known by its path.
                let place = open(target).and_then(|netns| place(&netns, target)).ok();
                let path = path(target);
                here()
                    .filter(in_app)
                    .filter(|endpoint| {
                        let same = |place: &endpoint::Netns| place.is_same(&endpoint.netns);
                        place.as_ref().map_or(endpoint.netns.path.as_str() == path, same)
                            || name.as_ref() == Some(&endpoint.key.name)
                    })
                    .cloned()
                    .collect()
            }
        };
        let mut gone = Vec::new();
        for endpoint in chosen {
            let revision = self.change(Change::RemoveEndpoint(endpoint.key.clone())).await?;
            self.reached(revision).await;
            if request.release {
                self.change(Change::Release(endpoint.key.clone())).await?;
            }
            gone.push(Gone {
                name: endpoint.key.name.to_string(),
                app: endpoint.key.app.to_string(),
                addresses: endpoint.addresses.iter().map(|addr| addr.to_string()).collect(),
                kept: !request.release,
            });
        }
        Ok(Detached { endpoints: gone })
    }

    pub(super) fn endpoints(&self) -> EndpointList {
        let (snapshot, status, plan) = (self.snapshot(), self.board.read(), self.plan());
        let by_mac = |endpoint: &Endpoint| plan.endpoints.iter().find(|(_, known)| known.mac == endpoint.mac);
        let shown = snapshot.cluster.endpoints_on(&self.host).map(|endpoint| {
            let state = match status.endpoints.get(&endpoint.key) {
                Some(EndpointState::Ready) => State::Ready,
                Some(EndpointState::Failed(why)) => State::Failed(why.clone()),
                None => State::Waiting("the next pass of the reconciler".to_owned()),
            };
            Shown { ifindex: by_mac(endpoint).map(|(link, _)| *link), ..Shown::of(endpoint, state) }
        });
        EndpointList { host: self.host.to_string(), endpoints: shown.collect() }
    }
}

fn asks_nothing_else(request: &Attach, before: &Endpoint) -> bool {
    let addresses: BTreeSet<IpAddr> = before.addresses.iter().collect();
    request.ips.iter().all(|addr| addresses.contains(&addr))
        && request.mac.is_none_or(|mac| mac == before.mac)
        && request.ifname.as_ref().is_none_or(|ifname| *ifname == before.ifname)
}

fn open(target: &Target) -> Result<Netns, Refusal> {
    let target = match target {
        Target::Pid(pid) => netns::Target::Pid(*pid),
        Target::Path(path) => netns::Target::Path(PathBuf::from(path.as_str())),
        Target::Name(name) => netns::Target::Name(name.as_str().to_owned()),
    };
    Netns::open(&target).map_err(|error| Refusal::not_found(format!("{error:#}")))
}

fn path(target: &Target) -> String {
    match target {
        Target::Pid(pid) => format!("/proc/{pid}/ns/net"),
        Target::Path(path) => path.as_str().to_owned(),
        Target::Name(name) => format!("/run/netns/{}", name.as_str()),
    }
}

fn place(netns: &Netns, target: &Target) -> Result<endpoint::Netns, Refusal> {
    let id = netns.id()?;
    let cookie = Some(netns.cookie()?);
    Ok(endpoint::Netns { path: path(target).parse()?, device: id.device(), inode: id.inode(), cookie })
}

fn is_alive(place: &endpoint::Netns) -> bool {
    let target = Target::Path(place.path.clone());
    open(&target).and_then(|netns| self::place(&netns, &target)).is_ok_and(|now| now.is_same(place))
}

/// The namespace's own name where it has one that will do, else its number.
fn default_name(target: &Target, place: &endpoint::Netns) -> Result<EndpointName, Refusal> {
    let name = match target {
        Target::Pid(_) => None,
        Target::Path(path) => path.as_str().rsplit('/').next().and_then(|name| name.parse().ok()),
        Target::Name(name) => name.as_str().parse().ok(),
    };
    Ok(name.map_or_else(|| format!("ns-{}", place.inode).parse(), Ok)?)
}

fn attached(cluster: &Cluster, endpoint: &Endpoint, host: &crate::model::name::HostName, was_there: bool) -> Attached {
    let app = &endpoint.key.app;
    let length = |addr: IpAddr| cluster.app_at(addr).map_or(Family::of(addr).bits(), |(_, prefix)| prefix.len());
    let gateways = cluster.hosts.get(host).into_iter().flat_map(|host| {
        let families = endpoint.addresses.iter().map(Family::of);
        families.filter_map(|family| host.gateway(app, family)).collect::<Vec<_>>()
    });
    Attached {
        name: endpoint.key.name.to_string(),
        app: app.to_string(),
        role: endpoint.role.as_ref().map(ToString::to_string),
        addresses: endpoint.addresses.iter().map(|addr| format!("{addr}/{}", length(addr))).collect(),
        mac: endpoint.mac.to_string(),
        ifname: endpoint.ifname.to_string(),
        gateways: gateways.map(|addr| addr.to_string()).collect(),
        link: endpoint.link.to_string(),
        was_there,
    }
}

fn refuse(error: &AllocateError) -> Refusal {
    let kind = match error {
        AllocateError::UnknownApp(_) | AllocateError::UnknownHost(_) => Kind::NotFound,
        AllocateError::Full(..) => Kind::Exhausted,
        AllocateError::NoBlock(..) | AllocateError::Elsewhere(..) | AllocateError::Unusable(..) => Kind::Invalid,
        AllocateError::Taken(..) | AllocateError::Kept(..) => Kind::Conflict,
    };
    Refusal::new(kind, error.to_string())
}
