//! What a new configuration may not change while calls are in progress, and what it does to them.

use super::setup::Setup;

impl Setup {
    /// Why `next` cannot follow this one in the same process, as far as the engine is concerned.
    pub fn obstacles(&self, next: &Self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.branch_key != next.branch_key {
            // Retransmissions, ACKs, CANCELs and responses would not find their transactions.
            obstacles.push(
                "token keys: the branch key is another one: every transaction in progress is known by it; a restart takes it up"
                    .to_owned(),
            );
        }
        obstacles
    }

    /// What becomes of calls that were set up before `next`, where that may surprise.
    pub fn consequences(&self, next: &Self) -> Vec<String> {
        let signed = self.token_keys.first();
        let verifies = |id: u8| next.token_keys.iter().any(|key| key.id == id);
        let mut consequences = Vec::new();
        if let Some(key) = signed.filter(|key| !verifies(key.id)) {
            consequences.push(format!(
                "token key {}: not among the new ones: requests within calls that were set up with it are refused from now on; to \
                 rotate keys, keep the old one as the second",
                key.id
            ));
        }
        let is_there = |name: &str| next.trunks.iter().any(|trunk| trunk.name == name);
        for trunk in self.trunks.iter().filter(|trunk| !is_there(&trunk.name)) {
            consequences.push(format!("trunk {}: gone: its calls in progress go on, uncounted", trunk.name));
        }
        consequences
    }
}
