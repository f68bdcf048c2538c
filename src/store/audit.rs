//! Details of changes for the audit trail. All back ends use them, so that their entries are equal.

use serde_json::{Map, Value, json};

use super::{KeyChange, KeySummary};

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
