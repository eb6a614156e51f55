//! deploy/istio and deploy/envoy-gateway, held to the schemas that Istio and Envoy Gateway publish. No
//! cluster runs here.

use std::{fs, path::Path};

use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// As `make setup` fetches them. In CI they must be there.
fn schemas() -> Option<&'static Path> {
    let schemas = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/meshes"));
    if schemas.join(".fetched").exists() {
        return Some(schemas);
    }
    println!(
        "skipped: schemas of Istio and Envoy Gateway: `make setup` fetches them where there is Go"
    );
    assert!(std::env::var_os("CI").is_none(), "{schemas:?} is missing");
    None
}

fn documents(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    text.split("\n---").map(ToOwned::to_owned).collect()
}

fn read(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).expect("YAML")
}

/// The schema of `kind` in the version that `resource` has, of those in `file`.
fn schema(file: &Path, resource: &Value) -> Value {
    let kind = resource["kind"].as_str().expect("a kind");
    let marker = format!("kind: {kind}\n");
    let documents = documents(file);
    let definition = documents
        .iter()
        .find(|text| text.contains(&marker) && text.contains("openAPIV3Schema"));
    let definition = read(definition.unwrap_or_else(|| panic!("{file:?} has no {kind}")));
    assert_eq!(definition["spec"]["names"]["kind"], kind);
    let group = definition["spec"]["group"].as_str().expect("a group");
    let versions = definition["spec"]["versions"].as_array().expect("versions");
    let version = versions.iter().find(|version| {
        let name = version["name"].as_str().expect("a name");
        version["served"] == true && resource["apiVersion"] == format!("{group}/{name}")
    });
    let version = version.unwrap_or_else(|| panic!("{kind} has no {}", resource["apiVersion"]));
    let mut schema = version["schema"]["openAPIV3Schema"].clone();
    close(&mut schema);
    // What every resource has; not all describe it.
    schema["properties"]["metadata"] = json!({"type": "object"});
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema
}

/// A cluster drops what it does not know; here that is an error.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_described = members.get("properties").is_some_and(Value::is_object)
                && members.get("type").is_some_and(|kind| kind == "object");
            let keeps_others = members.contains_key("x-kubernetes-preserve-unknown-fields");
            if is_described && !keeps_others && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), false.into());
            }
            members.values_mut().for_each(close);
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

/// What is wrong with a resource.
fn faults(file: &Path, resource: &Value) -> Vec<String> {
    let validator = jsonschema::draft4::new(&schema(file, resource)).expect("a schema");
    let errors = validator.iter_errors(resource);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn mesh_config(pool: &DescriptorPool, value: &Value) -> Result<DynamicMessage, serde_json::Error> {
    let message = pool.get_message_by_name("istio.mesh.v1alpha1.MeshConfig");
    DynamicMessage::deserialize(message.expect("it is described"), value)
}

#[test]
fn the_files_for_meshes_have_the_form_that_is_published_and_fail_closed() {
    let Some(schemas) = schemas() else { return };
    let deploy = Path::new(ROOT).join("deploy");
    let mut held = 0;
    let mut all = Vec::new();
    for (file, of) in [
        ("istio/authorization-policy.yaml", &["istio.yaml"; 2][..]),
        (
            "envoy-gateway/security-policy.yaml",
            &[
                "securitypolicies.yaml",
                "clienttrafficpolicies.yaml",
                "gateway-api.yaml",
            ],
        ),
    ] {
        let documents = documents(&deploy.join(file));
        assert_eq!(documents.len(), of.len(), "{file}");
        for (document, of) in documents.iter().zip(of) {
            let resource = read(document);
            assert_eq!(
                faults(&schemas.join(of), &resource),
                [""; 0],
                "{file}: {}",
                resource["kind"]
            );
            held += 1;
            all.push(resource);
        }
    }
    let security = &all[2]["spec"]["extAuth"];
    assert_eq!(
        (&security["failOpen"], &security["statusOnError"]),
        (&json!(false), &json!(503))
    );
    // The nearest faults are seen.
    for (path, value) in [
        ("/spec/extAuth/failOpn", json!(false)),
        ("/spec/extAuth/failOpen", json!("no")),
        ("/spec/extAuth/statusOnError", json!(200)),
    ] {
        let mut wrong = all[2].clone();
        let (parent, key) = path.rsplit_once('/').expect("a path");
        wrong.pointer_mut(parent).expect("there")[key] = value;
        assert_ne!(
            faults(&schemas.join("securitypolicies.yaml"), &wrong),
            [""; 0],
            "{path}"
        );
    }

    let descriptors = fs::read(schemas.join("mesh-config.binpb")).expect("it is there");
    let pool = DescriptorPool::decode(&*descriptors).expect("descriptors");
    let operator = read(&documents(&deploy.join("istio/mesh-config.yaml"))[0]);
    let mesh = &operator["spec"]["meshConfig"];
    mesh_config(&pool, mesh).unwrap_or_else(|error| panic!("istio/mesh-config.yaml: {error}"));
    let mut wrong = mesh.clone();
    wrong["extensionProviders"][0]["envoyExtAuthzGrpc"]["failOpn"] = false.into();
    mesh_config(&pool, &wrong).expect_err("an unknown field");
    let provider = &mesh["extensionProviders"][0];
    assert_eq!(provider["envoyExtAuthzGrpc"]["failOpen"], false);
    // The name by which the policy calls it.
    assert_eq!(provider["name"], all[0]["spec"]["provider"]["name"]);
    println!("meshes: {} resources", held + 1);
}
