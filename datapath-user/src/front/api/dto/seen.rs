//! Contacts gathered: from a host's table, and from the answers of many hosts.

use std::collections::BTreeMap;

use super::learning::Contact;

/// How many addresses outside are told one by one of contacts that are the same otherwise. More than rules can name, and
/// few enough to be sent.
const ADDRESSES: usize = 1024;

/// Contacts, each class once, and each address outside that there is room for.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// By class.
    contacts: BTreeMap<Contact, Contact>,
    /// How many addresses there are, of those that are the same otherwise.
    addresses: BTreeMap<Contact, usize>,
}

impl Seen {
    /// Keeps a contact, unless one that means the same is there.
    pub fn add(&mut self, contact: Contact) {
        let (class, anywhere) = (contact.class(), contact.anywhere());
        if self.contacts.contains_key(&class) || self.contacts.contains_key(&anywhere) {
            return;
        }
        let addresses = self.addresses.entry(anywhere.clone()).or_default();
        *addresses += 1;
        if contact.scattered || *addresses > ADDRESSES {
            self.contacts.insert(anywhere, Contact { scattered: true, ..contact });
        } else {
            self.contacts.insert(class, contact);
        }
    }

    /// All of them, in order.
    pub fn into_contacts(self) -> Vec<Contact> {
        self.contacts.into_values().collect()
    }
}

impl Extend<Contact> for Seen {
    fn extend<I: IntoIterator<Item = Contact>>(&mut self, contacts: I) {
        for contact in contacts {
            self.add(contact);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::front::api::dto::learning::{Membership, Who};

    fn who(app: &str, role: Membership, address: IpAddr) -> Who {
        Who { app: app.to_owned(), role, address }
    }

    fn contact(from: Who, to: Who) -> Contact {
        Contact { from, to, protocol: 6, port: 443, scattered: false }
    }

    fn address(at: u32) -> IpAddr {
        Ipv4Addr::from(0x0a01_0000 + at).into()
    }

    #[test]
    fn endpoints_of_one_role_are_one_and_addresses_that_decide_are_told() {
        let check = |to: &dyn Fn(u32) -> Who, expect: usize| {
            let mut seen = Seen::default();
            for at in 0..10 {
                let web = who("shop", Membership::Role("web".to_owned()), address(at));
                seen.add(contact(web.clone(), to(at)));
                seen.add(contact(web, to(at)));
            }
            assert_eq!(seen.into_contacts().len(), expect);
        };
        check(&|at| who("blog", Membership::None, address(at)), 1);
        check(&|at| who(Who::HOST, Membership::None, address(at)), 1);
        check(&|at| who("blog", Membership::Unknown, address(at)), 10);
        check(&|at| who(Who::OUTSIDE, Membership::None, address(at)), 10);
    }

    #[test]
    fn what_is_seen_of_too_many_addresses_is_kept_as_seen_of_all() {
        let mut seen = Seen::default();
        for at in 0..5000 {
            let web = who("shop", Membership::None, address(0));
            seen.add(contact(web, who(Who::OUTSIDE, Membership::None, address(at))));
        }
        let contacts = seen.into_contacts();
        assert_eq!(contacts.len(), ADDRESSES + 1);
        assert_eq!(contacts.iter().filter(|contact| contact.scattered).count(), 1);
        // What one host had too much of, nobody tells one by one again.
        let mut again = Seen::default();
        again.extend(contacts.into_iter().rev());
        assert!(again.into_contacts().iter().any(|contact| contact.scattered));
    }
}
