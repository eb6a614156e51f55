//! Clerk's own description of its API, as far as the offline Clerk goes.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// The file, with its schemas in the form of JSON Schema.
pub struct OpenApi {
    document: Value,
}

impl OpenApi {
    pub fn load() -> Self {
        let text = include_str!("../clerk-openapi/bapi.json");
        let document = serde_json::from_str(text).expect("JSON");
        Self {
            document: as_json_schema(document),
        }
    }

    /// Every operation: id → (method, path with `/v1`).
    pub fn operations(&self) -> BTreeMap<String, (String, String)> {
        let mut operations = BTreeMap::new();
        for (path, item) in self.document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("methods") {
                let id = operation["operationId"].as_str().expect("an id");
                operations.insert(id.to_owned(), (method.to_uppercase(), format!("/v1{path}")));
            }
        }
        operations
    }

    fn operation(&self, id: &str) -> &Value {
        let paths = self.document["paths"].as_object().expect("paths");
        paths
            .values()
            .flat_map(|item| item.as_object().expect("methods").values())
            .find(|operation| operation["operationId"] == id)
            .unwrap_or_else(|| {
                panic!("no {id} in the excerpt; scripts/cut-clerk-openapi.py has the list")
            })
    }

    fn resolved<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.trim_start_matches('#');
                self.document.pointer(pointer).expect("a component")
            }
            None => node,
        }
    }

    /// The schema of an answer. Statuses that an operation does not declare have Clerk's errors:
    /// the file declares 429 and many 401s nowhere.
    pub fn answer(&self, id: &str, status: u16) -> Validator {
        let declared = &self.operation(id)["responses"][status.to_string()];
        let schema = if declared.is_null() {
            assert!(status >= 400, "{id} declares no {status}");
            json!({ "$ref": "#/components/schemas/ClerkErrors" })
        } else {
            self.resolved(declared)["content"]["application/json"]["schema"].clone()
        };
        assert!(schema.is_object(), "{id} {status} has no schema");
        let mut root = schema;
        if root["$ref"].is_string() {
            root = json!({ "allOf": [root] });
        }
        root["components"] = self.document["components"].clone();
        jsonschema::draft202012::new(&root).unwrap_or_else(|error| panic!("{id}: {error}"))
    }

    /// The members that an operation's body may have.
    pub fn body_members(&self, id: &str) -> Vec<String> {
        let schema = &self.operation(id)["requestBody"]["content"]["application/json"]["schema"];
        let members = schema["properties"].as_object();
        members.map_or_else(Vec::new, |members| members.keys().cloned().collect())
    }

    /// The parameters of an operation's query, with their types.
    pub fn query_parameters(&self, id: &str) -> Vec<(String, String)> {
        let parameters = self.operation(id)["parameters"].as_array();
        parameters
            .into_iter()
            .flatten()
            .map(|parameter| self.resolved(parameter))
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| {
                let text = |value: &Value| value.as_str().expect("text").to_owned();
                (text(&parameter["name"]), text(&parameter["schema"]["type"]))
            })
            .collect()
    }
}

/// OpenAPI 3.0 says `nullable` where JSON Schema says that `null` is a type, and looks at nothing
/// beside a `$ref`.
pub fn as_json_schema(node: Value) -> Value {
    match node {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").filter(|value| value.is_string()) {
                return json!({ "$ref": reference });
            }
            let nullable = members.get("nullable") == Some(&json!(true));
            let members: Map<String, Value> = members
                .into_iter()
                .filter(|(name, value)| !(name == "nullable" && value.is_boolean()))
                .map(|(name, value)| (name, as_json_schema(value)))
                .collect();
            let schema = Value::Object(members);
            if nullable {
                json!({ "anyOf": [schema, { "type": "null" }] })
            } else {
                schema
            }
        }
        Value::Array(items) => Value::Array(items.into_iter().map(as_json_schema).collect()),
        other => other,
    }
}

#[test]
fn nullable_permits_null_and_nothing_else() {
    let check = |schema: Value, value: Value| {
        jsonschema::draft202012::new(&as_json_schema(schema))
            .expect("a schema")
            .is_valid(&value)
    };
    for nullable in [
        json!({ "type": "string", "nullable": true }),
        json!({ "type": "string", "enum": ["a"], "nullable": true }),
        json!({ "allOf": [{ "type": "string" }], "nullable": true }),
        json!({ "type": "string", "oneOf": [{ "enum": ["a"] }], "nullable": true }),
    ] {
        assert!(check(nullable.clone(), json!(null)), "{nullable}");
        assert!(check(nullable.clone(), json!("a")), "{nullable}");
        assert!(!check(nullable.clone(), json!(1)), "{nullable}");
    }
    let property = json!({ "properties": { "nullable": { "type": "string" } } });
    assert!(check(property.clone(), json!({ "nullable": "a" })));
    assert!(!check(property, json!({ "nullable": null })));
}
