//! The proof that a policy which follows another is the one that is made anew.

use super::*;

impl World {
    /// Some rules less, and some of `pool` more, anywhere.
    fn edit(&mut self, pool: &[Statement], random: &mut Random) {
        for _ in 0..=random.below(3) {
            if !self.rules.is_empty() && random.chance(50) {
                let at = random.below(self.rules.len());
                self.rules.remove(at);
            }
            if !pool.is_empty() && random.chance(60) {
                let rule = random.one(pool).clone();
                if !self.rules.iter().any(|old| Self::text(old) == Self::text(&rule)) {
                    let at = random.below(self.rules.len() + 1);
                    self.rules.insert(at, rule);
                }
            }
        }
    }
}

/// A policy that follows another is the one that is made anew with the same numbers before it, in every table.
#[test]
fn what_is_made_of_what_is_other_is_what_is_made_anew() {
    let facts = |second: u64| Facts { clock: Clock { zero: BOOT, now: second * SECOND }, ..Facts::default() };
    let host = "h1".parse().unwrap();
    let (mut followed, mut tried) = (0, 0);
    for seed in 0..200 {
        let mut random = Random(seed ^ 0x5eed);
        let mut world = World::random(&mut random);
        let pool = world.rules.clone();
        let mut cluster = world.cluster();
        let mut now = 80;
        let mut before = plan(&cluster, &host, &facts(now), &NodePlan::default());
        for step in 0..8 {
            world.edit(&pool, &mut random);
            now += *random.one(&[0, 0, 5, 20]);
            // Rules are other values that say the same, as when a file is read again.
            let mut next = world.cluster();
            if random.chance(70) {
                next.apps = Arc::clone(&cluster.apps);
            }
            let made = plan(&next, &host, &facts(now), &before);
            let start = NodePlan { ids: before.ids.clone(), ..NodePlan::default() };
            let anew = plan(&next, &host, &facts(now), &start);
            assert_eq!(made.policy, anew.policy, "seed {seed}, step {step}");
            assert_eq!(made.ids, anew.ids, "seed {seed}, step {step}");
            for _ in 0..20 {
                let packet = Packet { time: now * SECOND, ..world.packet(&mut random) };
                let (decision, _) = ask(&made, &next, &packet);
                let (verdict, ..) = world.answer(&packet, Counting::InForce);
                assert_eq!(decision.verdict, verdict, "seed {seed}, step {step}, {packet:?}");
            }
            followed += usize::from(made.policy != before.policy);
            tried += usize::from(made.config.shadow != before.config.shadow);
            (before, cluster) = (made, next);
        }
    }
    assert!(followed > 1_000 && tried > 25, "{followed} {tried}");
}
