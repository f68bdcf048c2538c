//! Details of changes for the audit trail. All back ends use them, so that their entries are equal.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::{KeyChange, KeyPatch, KeySummary, NewKey};
use crate::{
    clock::rfc3339,
    key::{KeyId, KeyRecord},
};

impl NewKey {
    /// Creates the record of a key that is issued at `now`.
    pub(crate) fn record(&self, now: SystemTime) -> KeyRecord {
        KeyRecord {
            masked: self.secret.masked(),
            label: self.label.clone(),
            created_at: Some(now),
            expires_at: self.expires_at,
            ..KeyRecord::new(KeyId::generate(), self.daily_limit)
        }
    }
}

impl KeyPatch {
    /// Sets the fields of the record for which the patch has a value.
    pub(crate) fn apply(&self, record: &mut KeyRecord) {
        if let Some(label) = &self.label {
            record.label.clone_from(label);
        }
        if let Some(daily_limit) = self.daily_limit {
            record.daily_limit = daily_limit;
        }
        if let Some(expires_at) = self.expires_at {
            record.expires_at = expires_at;
        }
        if let Some(disabled) = self.disabled {
            record.disabled = disabled;
        }
    }
}

impl KeyRecord {
    /// Whether the label, the id or the masked key contains this lower-case text.
    pub(crate) fn matches(&self, text: &str) -> bool {
        [&*self.label, self.id.as_str(), &self.masked]
            .iter()
            .any(|field| field.to_lowercase().contains(text))
    }

    fn audit_fields(&self) -> Map<String, Value> {
        let fields = json!({
            "key": self.masked,
            "label": self.label,
            "daily_limit": self.daily_limit,
            "expires_at": self.expires_at.map(rfc3339),
            "disabled": self.disabled,
        });
        let Value::Object(fields) = fields else {
            return Map::new();
        };
        fields
    }

    /// Returns the fields of a new key as a JSON object.
    pub(crate) fn audit_detail(&self) -> String {
        Value::Object(self.audit_fields()).to_string()
    }
}

impl KeyChange {
    /// Returns the changed fields, each as `{"before":…,"after":…}`, as a JSON object.
    pub(crate) fn audit_detail(&self, before: &KeySummary, after: &KeySummary) -> String {
        match self {
            Self::Delete => return before.record.audit_detail(),
            Self::ResetUsage => {
                return json!({"used": {"before": before.used_today, "after": 0}}).to_string();
            }
            Self::Update(_) | Self::Rotate(_) => {}
        }
        let mut changed = Map::new();
        let before = before.record.audit_fields();
        for (field, after) in after.record.audit_fields() {
            if before[&field] != after {
                changed.insert(field.clone(), json!({"before": before[&field], "after": after}));
            }
        }
        Value::Object(changed).to_string()
    }
}
