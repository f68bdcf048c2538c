//! Kubernetes: the manifests fit each other and the gateway, and the guide leads to a chat.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use crate::common::{
    Client, Gateway, GatewayCommand, StandIns, Upstream, chat_json, eventually, gateway_binary,
    installed, json_response,
};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Value, json};

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy").join(path)
}

/// The documents of a YAML text.
fn yaml(text: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    documents.iter().map(to_json).collect()
}

fn to_json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => json!(value),
        Yaml::Value(Scalar::Integer(value)) => json!(value),
        Yaml::Value(Scalar::FloatingPoint(value)) => json!(value.into_inner()),
        Yaml::Value(Scalar::String(value)) => json!(value),
        Yaml::Sequence(values) => values.iter().map(to_json).collect(),
        Yaml::Mapping(values) => values
            .iter()
            .map(|(name, value)| (name.as_str().unwrap().to_owned(), to_json(value)))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn manifest(name: &str) -> Value {
    let mut documents = yaml(&fs::read_to_string(deployed("kubernetes").join(name)).unwrap());
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// The lines `NAME=value` of a file.
fn variables(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().map(|line| line.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn strings(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// The element of a list with this name.
fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut found = list.as_array().unwrap().iter().filter(|item| item["name"] == name);
    let item = found.next().unwrap_or_else(|| panic!("no {name} in {list}"));
    assert!(found.next().is_none(), "{name} twice in {list}");
    item
}

fn seconds(text: &str) -> i64 {
    text.strip_suffix('s').unwrap().parse().unwrap()
}

#[test]
fn the_manifests_name_each_other_and_existing_settings() {
    let kustomization = manifest("kustomization.yaml");
    let listed = strings(&kustomization["resources"]);
    let files = fs::read_dir(deployed("kubernetes")).unwrap();
    let files: BTreeSet<String> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let others = ["kustomization.yaml", "restore.yaml", "secret.env", "settings.env"];
    let resources = files.iter().map(String::as_str).filter(|file| !others.contains(file));
    assert_eq!(listed, resources.collect(), "all files are resources");

    let deployment = manifest("deployment.yaml");
    let (spec, pod) = (&deployment["spec"], &deployment["spec"]["template"]["spec"]);
    let labels = &spec["template"]["metadata"]["labels"];
    let service = manifest("service.yaml");
    let (ingress, policy) = (manifest("ingress.yaml"), manifest("network-policy.yaml"));
    for selector in [
        &spec["selector"]["matchLabels"],
        &service["spec"]["selector"],
        &policy["spec"]["podSelector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    assert_eq!((&spec["replicas"], &spec["strategy"]["type"]), (&json!(1), &json!("Recreate")));

    // Ports are those of names.
    let container = named(&pod["containers"], "gateway");
    let port = named(&container["ports"], "http");
    let served = named(&service["spec"]["ports"], "http");
    assert_eq!((&served["port"], &served["targetPort"]), (&port["containerPort"], &port["name"]));
    assert_eq!(service["metadata"]["name"], "quota-proxy-service");
    assert_eq!(kustomization["namespace"], "default");
    let rule = &ingress["spec"]["rules"][0];
    assert_eq!(rule["host"], "quota-proxy.yourdomain.com");
    assert_eq!(rule["host"], ingress["spec"]["tls"][0]["hosts"][0]);
    let backend = &rule["http"]["paths"][0]["backend"]["service"];
    assert_eq!(
        (&backend["name"], &backend["port"]["name"]),
        (&service["metadata"]["name"], &served["name"])
    );
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], port["name"]);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], port["name"], "{probe}");
    }

    // The volumes exist, and the database is on the claim.
    let claim = manifest("volume.yaml")["metadata"]["name"].clone();
    let restore = manifest("restore.yaml");
    for pod in [pod, &restore["spec"]] {
        let data = named(&pod["volumes"], "data");
        assert_eq!(data["persistentVolumeClaim"]["claimName"], claim);
        let container = named(&pod["containers"], "gateway");
        for mount in container["volumeMounts"].as_array().unwrap() {
            named(&pod["volumes"], mount["name"].as_str().unwrap());
        }
        assert_eq!(named(&container["volumeMounts"], "data")["mountPath"], "/data");
        assert_eq!(named(&container["env"], "DATABASE_URL")["value"], "/data/quota.db");
    }

    // Settings are those of the gateway.
    let help = Command::new(gateway_binary()).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let mut names: Vec<String> = Vec::new();
    for (generator, source) in
        [("configMapGenerator", "configMapRef"), ("secretGenerator", "secretRef")]
    {
        let generated = &kustomization[generator][0];
        let mut sources = container["envFrom"].as_array().unwrap().iter();
        assert!(sources.any(|from| from[source]["name"] == generated["name"]), "{generator}");
        let file = deployed("kubernetes").join(generated["envs"][0].as_str().unwrap());
        names.extend(variables(&fs::read_to_string(file).unwrap()).into_keys());
    }
    let env = container["env"].as_array().unwrap();
    names.extend(env.iter().map(|variable| variable["name"].as_str().unwrap().to_owned()));
    for name in &names {
        assert!(help.contains(&format!("[env: {name}]")), "{name} is no setting");
    }
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "one is set twice");

    // The end fits: the pod is given more time than the gateway takes.
    let time = |name: &str| seconds(named(&container["env"], name)["value"].as_str().unwrap());
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(grace >= time("SHUTDOWN_DELAY") + time("SHUTDOWN_GRACE") + 10);
}

#[test]
fn pods_run_confined_and_as_an_unprivileged_user() {
    let deployment = manifest("deployment.yaml");
    let restore = manifest("restore.yaml");
    for pod in [&deployment["spec"]["template"]["spec"], &restore["spec"]] {
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(context[id], 65532, "{id}");
        }
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(pod["automountServiceAccountToken"], false);
        let containers = pod["containers"].as_array().unwrap().iter();
        for container in containers.chain(pod["initContainers"].as_array().into_iter().flatten()) {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{container}");
        }
    }
    let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
    assert!(fs::read_to_string(dockerfile).unwrap().contains("USER 65532:65532"));
}

/// A cluster that runs the Deployment's container as a process, its volumes being directories.
struct Cluster {
    /// The manifests that were applied, by kind.
    objects: BTreeMap<String, Value>,
    replicas: u64,
    gateway: Option<Gateway>,
    command: GatewayCommand,
    port: u16,
    upstream: String,
    restored: Option<String>,
}

impl Cluster {
    fn new(upstream: &Upstream) -> Self {
        let free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
        let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
        let port = (first..).find(free).unwrap();
        let command = GatewayCommand::bare();
        for dir in ["data", "tmp", "upload"] {
            fs::create_dir(command.dir().join(dir)).unwrap();
        }
        Self {
            objects: BTreeMap::new(),
            replicas: 0,
            gateway: None,
            command,
            port,
            upstream: upstream.base_url(),
            restored: None,
        }
    }

    fn dir(&self, volume: &str) -> PathBuf {
        self.command.dir().join(volume)
    }

    fn apply(&mut self, rendered: &str) {
        for object in yaml(rendered) {
            self.objects.insert(object["kind"].as_str().unwrap().to_owned(), object);
        }
        self.scale(1);
    }

    /// Recreate: the pod ends before another one starts.
    fn scale(&mut self, replicas: u64) {
        if let Some(mut gateway) = self.gateway.take() {
            gateway.terminate();
            while !gateway.printed().contains("shutting down") {
                thread::sleep(Duration::from_millis(5));
            }
            // There is no ingress controller to give time to.
            gateway.terminate();
            assert!(gateway.wait().success());
        }
        self.replicas = replicas;
        if replicas == 1 {
            self.gateway = Some(self.command_of_pod().start());
        }
    }

    fn container(&self) -> &Value {
        named(&self.objects["Deployment"]["spec"]["template"]["spec"]["containers"], "gateway")
    }

    /// The container's environment, with its volumes and its port mapped to this machine.
    fn command_of_pod(&self) -> GatewayCommand {
        use base64_of_secret as decode;
        let mut command = self.command.clone();
        for from in self.container()["envFrom"].as_array().unwrap() {
            for (reference, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
                if let Some(reference) = from.get(reference) {
                    let object = &self.objects[kind];
                    assert_eq!(object["metadata"]["name"], reference["name"]);
                    for (name, value) in object["data"].as_object().unwrap() {
                        let value = value.as_str().unwrap();
                        let value = if kind == "Secret" { decode(value) } else { value.to_owned() };
                        command = command.env(name, value);
                    }
                }
            }
        }
        for variable in self.container()["env"].as_array().unwrap() {
            let value = variable["value"].as_str().unwrap();
            command = command.env(variable["name"].as_str().unwrap(), self.mapped(value));
        }
        command.env("PORT", self.port.to_string())
    }

    /// A path in a container is one in the directory of its volume.
    fn mapped(&self, text: &str) -> String {
        let volume = ["/data/", "/tmp/", "/upload/"].iter().any(|path| text.starts_with(path));
        if volume { format!("{}{text}", self.command.dir().display()) } else { text.to_owned() }
    }

    /// Whether a probe of the manifest succeeds.
    async fn probe(&self, probe: &str) -> bool {
        let path = self.container()[probe]["httpGet"]["path"].as_str().unwrap();
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        Client::http1().get(&url).await.status == 200
    }
}

/// Base64 as in Secrets.
fn base64_of_secret(text: &str) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let digit = digits.iter().position(|digit| *digit == letter).unwrap();
        (bits, count) = (bits << 6 | u32::try_from(digit).unwrap(), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn placeholders_for_secrets_are_rejected_at_the_start() {
    let secrets = fs::read_to_string(deployed("kubernetes/secret.env")).unwrap();
    let mut command = GatewayCommand::bare().env("PORT", "0");
    for (name, value) in variables(&secrets) {
        command = command.env(&name, value);
    }
    let Output { status, stderr, .. } = command.output();
    let printed = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{printed}");
    assert!(printed.starts_with("ADMIN_TOKEN: "), "{printed}");
}

/// The manifests as kustomize renders them.
fn kustomize(dir: &Path) -> String {
    let output = Command::new(kubectl_program()).arg("kustomize").arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs kubectl and kubernetes-validate"]
fn kubernetes_takes_the_manifests() {
    let validate = installed("kubernetes/bin/kubernetes-validate")
        .unwrap_or_else(|| "kubernetes-validate".into());
    let dir = tempfile::tempdir().unwrap();
    let rendered = dir.path().join("rendered.yaml");
    let restore = deployed("kubernetes/restore.yaml");
    let page = fs::read_to_string(deployed("kubernetes.md")).unwrap();
    for (manifests, others) in [("kubernetes", &[restore][..]), ("kubernetes-nodes", &[])] {
        fs::write(&rendered, kustomize(&deployed(manifests))).unwrap();
        for version in ["1.25", "1.37"] {
            assert!(page.contains(version));
            let output = Command::new(&validate)
                .args(["--strict", "-k", version])
                .arg(&rendered)
                .args(others)
                .output()
                .unwrap();
            let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(output.status.success(), "{printed}");
            assert_eq!(printed.matches(" passed for resource ").count(), 8, "{printed}");
        }
    }
}

#[test]
#[ignore = "needs kubectl"]
fn several_gateways_have_one_database_and_a_journal_each() {
    let objects = yaml(&kustomize(&deployed("kubernetes-nodes")));
    let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).collect();
    let one = |kind: &str| {
        let found: Vec<&Value> = of_kind(kind);
        assert_eq!(found.len(), 1, "{kind}");
        found[0]
    };
    for kind in ["Deployment", "PersistentVolumeClaim"] {
        let found: Vec<&Value> = of_kind(kind);
        assert!(found.is_empty(), "{kind}");
    }

    let set = one("StatefulSet");
    let (spec, pod) = (&set["spec"], &set["spec"]["template"]["spec"]);
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(&spec["selector"]["matchLabels"], labels);
    assert!(spec["replicas"].as_u64().unwrap() > 1);
    assert!(spec["strategy"].is_null(), "a StatefulSet has none");
    let services: Vec<&Value> = of_kind("Service");
    assert!(services.iter().all(|service| &service["spec"]["selector"] == labels));
    assert!(services.iter().any(|service| service["metadata"]["name"] == spec["serviceName"]));

    // The journal is on the claim of its pod, and the database is that of all.
    let container = named(&pod["containers"], "gateway");
    let claims = spec["volumeClaimTemplates"].as_array().unwrap();
    let claim = &claims[0]["metadata"]["name"];
    assert_eq!(claims.len(), 1);
    let mount = named(&container["volumeMounts"], claim.as_str().unwrap());
    let journal = named(&container["env"], "JOURNAL_PATH")["value"].as_str().unwrap();
    assert!(journal.starts_with(&format!("{}/", mount["mountPath"].as_str().unwrap())));
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["name"] != *claim), "a claim for all pods");
    let names = container["env"].as_array().unwrap().iter();
    assert!(names.clone().all(|variable| variable["name"] != "DATABASE_URL"));
    let settings = one("ConfigMap");
    let database = settings["data"]["DATABASE_URL"].as_str().unwrap();
    assert!(database.starts_with("postgres://") && !database.contains("sslmode=disable"));
    assert!(one("Secret")["data"]["DATABASE_PASSWORD"].is_string());
    let help = Command::new(gateway_binary()).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let names = names.map(|variable| variable["name"].as_str().unwrap());
    for name in names.chain(["DATABASE_URL", "DATABASE_PASSWORD"]) {
        assert!(help.contains(&format!("[env: {name}]")), "{name} is no setting");
    }

    // It is reached, and a drained machine takes one pod at a time.
    let budget = &one("PodDisruptionBudget")["spec"];
    assert_eq!(
        (&budget["selector"]["matchLabels"], &budget["maxUnavailable"]),
        (labels, &json!(1))
    );
    let egress = one("NetworkPolicy")["spec"]["egress"].to_string();
    assert!(egress.contains("5432"), "{egress}");
    let hash = "nginx.ingress.kubernetes.io/upstream-hash-by";
    assert_eq!(
        one("Ingress")["metadata"]["annotations"][hash],
        "$http_authorization$http_x_api_key"
    );
}

/// The blocks of a page that this test runs.
fn blocks(page: &str) -> Vec<String> {
    let text = fs::read_to_string(deployed(page)).unwrap();
    let blocks = text.split("<!-- docs: run by tests/gateway/kubernetes.rs -->\n```sh\n").skip(1);
    blocks.map(|block| block.split_once("```\n").unwrap().0.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs bash, curl, openssl and kubectl"]
async fn the_guide_leads_from_a_checkout_to_a_chat_and_back() {
    let pages = [blocks("kubernetes.md"), blocks("kubernetes.zh.md")];
    assert_eq!(pages[0], pages[1], "the two pages have other commands");
    let script = pages[0].concat();
    let procedure = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trial-key-process.zh.md");
    let procedure = fs::read_to_string(procedure).unwrap();
    for user in ["quota-proxy-service.default.svc.cluster.local:8787", "quota-proxy.yourdomain.com"]
    {
        assert!(procedure.contains(user) && script.contains(user), "{user}");
    }

    let upstream = Upstream::start(|_| json_response(chat_json().to_string())).await;
    let mut cluster = Cluster::new(&upstream);
    let checkout = tempfile::tempdir().unwrap();
    let repository = checkout.path().join("repository");
    fs::create_dir_all(repository.join("docs/deploy/kubernetes")).unwrap();
    for file in fs::read_dir(deployed("kubernetes")).unwrap() {
        let file = file.unwrap();
        let copy = repository.join("docs/deploy/kubernetes").join(file.file_name());
        fs::copy(file.path(), copy).unwrap();
    }
    let programs = StandIns::new();
    programs.add(
        "docker",
        "[[ \"$1 ${@: -1}\" =~ ^(build .|push registry.example.com/quota-proxy:0.1.0)$ ]]",
    );
    // Every way into the cluster leads to its one process.
    let curl = format!(
        "exec /usr/bin/curl -sS --connect-to ::127.0.0.1:{} \
         \"${{@//https:\\/\\/quota-proxy.yourdomain.com/http://quota-proxy.yourdomain.com}}\"",
        cluster.port
    );
    programs.add("curl", &curl);
    let root = cluster.command.dir().display().to_string();
    let locally = format!(
        "case \"$*\" in\n\
         port-forward*) exec sleep 60 >/dev/null 2>&1;;\n\
         run\\ *) while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\";;\n\
         'exec -i quota-proxy-restore -c upload -- sh -c '*) \
           command=${{@: -1}}; exec bash -c \"${{command//\\/upload/{root}/upload}}\";;\n\
         'apply -k .') {} kustomize . > {root}/rendered.yaml;;\n\
         'apply -f restore.yaml') cp restore.yaml {root}/restore.yaml;;\n\
         esac",
        kubectl_program().display()
    );
    let runtime = tokio::runtime::Handle::current();
    // The user's own commands, on the way, with the token filled in.
    let (_, section) = procedure.split_once("#### 3.2.5 ").unwrap();
    let (_, section) = section.split_once("```bash\n").unwrap();
    let (own, _) = section.split_once("```").unwrap();
    let own = own.replace("你的管理员令牌", "$ADMIN_TOKEN");
    let (first, rest) = script.split_once("kubectl logs deployment").unwrap();
    let script = format!("{first}{own}kubectl logs deployment{rest}");
    let printed = programs.run(&script, &repository, "kubectl", &locally, |line| {
        let settled = |cluster: &Cluster| {
            let probes = async {
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                    eventually(probe, || cluster.probe(probe)).await;
                }
            };
            tokio::task::block_in_place(|| runtime.block_on(probes));
        };
        kubectl(&mut cluster, line, settled)
    });

    // Keys were made, each in its way.
    let keys: Vec<&str> = printed.split("\"key\":\"").skip(1).collect();
    let labels = ["alice", "k8s-user", "ingress-user", "k8s-user", "ingress-user"];
    assert_eq!(keys.len(), labels.len(), "{printed}");
    for (key, label) in keys.iter().zip(labels) {
        assert!(key.contains(&format!("\"label\":\"{label}\"")), "{printed}");
    }
    assert!(printed.contains("{\"ok\":true}"), "{printed}");
    assert!(printed.contains("\"message\":"), "no log in JSON: {printed}");
    assert!(printed.contains("kept: "), "nothing was restored: {printed}");
    assert!(cluster.gateway.is_none(), "it was deleted");
    assert!(cluster.dir("data").join("quota.db").exists());

    // The pod of the manifest serves a chat with the first of them.
    cluster.scale(1);
    let key = keys[0].split('"').next().unwrap();
    let url = format!("http://127.0.0.1:{}/v1/chat/completions", cluster.port);
    let response = Client::http1().post_as(key, &url, &json!({})).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(upstream.last().headers["authorization"], "Bearer sk-your-key");
}

/// The real one, which renders manifests without a cluster.
fn kubectl_program() -> PathBuf {
    let on_path = std::env::var("PATH").unwrap();
    let on_path = on_path.split(':').map(|dir| Path::new(dir).join("kubectl"));
    let found = installed("kubernetes/bin/kubectl").into_iter().chain(on_path);
    found.into_iter().find(|file| file.exists()).expect("kubectl")
}

/// What `kubectl` does in the cluster. `settled` returns when the pod's probes succeed.
fn kubectl(
    cluster: &mut Cluster,
    line: &str,
    settled: impl Fn(&Cluster),
) -> Result<String, String> {
    const DEPLOYMENT: &str = "deployment/quota-proxy";
    const RESTORE: &str = "quota-proxy-restore";
    let words: Vec<&str> = line.split(' ').collect();
    match &words[..] {
        ["create", "secret", "tls", name, ..] => {
            assert_eq!(manifest("ingress.yaml")["spec"]["tls"][0]["secretName"], *name);
            Ok(format!("secret/{name} created"))
        }
        ["apply", "-k", "."] => {
            let rendered = fs::read_to_string(cluster.dir("rendered.yaml")).unwrap();
            let upstream = cluster.upstream.clone();
            let image = "image: registry.example.com/quota-proxy:0.1.0";
            assert!(rendered.contains(image), "{rendered}");
            cluster.apply(&rendered.replace("https://api.deepseek.com/v1", &upstream));
            Ok(String::new())
        }
        ["rollout", "status", DEPLOYMENT, "--timeout", _] => {
            settled(cluster);
            Ok("deployment \"quota-proxy\" successfully rolled out".to_owned())
        }
        ["logs", DEPLOYMENT, "--tail", _] => Ok(cluster.gateway.as_ref().unwrap().printed()),
        ["exec", DEPLOYMENT, "--", "gateway", arguments @ ..] => {
            let mut command = cluster.command_of_pod();
            for argument in arguments {
                command = command.arg(&cluster.mapped(argument));
            }
            let output = command.output();
            assert!(output.status.success(), "{output:?}");
            Ok(String::from_utf8(output.stdout).unwrap())
        }
        ["scale", DEPLOYMENT, "--replicas", replicas] => {
            cluster.scale(replicas.parse().unwrap());
            Ok(String::new())
        }
        ["wait", "pod", "-l", "app.kubernetes.io/name=quota-proxy", "--for", "delete", ..] => {
            assert_eq!(cluster.replicas, 0);
            Ok(String::new())
        }
        ["apply", "-f", "restore.yaml"] => Ok(String::new()),
        ["exec", RESTORE, "-c", "upload", "--", "true"] => Ok(String::new()),
        ["wait", "pod/quota-proxy-restore", ..] => {
            assert!(cluster.dir("upload").join("backup.db").exists());
            let pod = manifest("restore.yaml");
            let container = named(&pod["spec"]["containers"], "gateway");
            let mut command = cluster.command.clone();
            for variable in container["env"].as_array().unwrap() {
                let value = cluster.mapped(variable["value"].as_str().unwrap());
                command = command.env(variable["name"].as_str().unwrap(), value);
            }
            for argument in container["args"].as_array().unwrap() {
                command = command.arg(&cluster.mapped(argument.as_str().unwrap()));
            }
            let output = command.output();
            assert!(output.status.success(), "{output:?}");
            cluster.restored = Some(String::from_utf8(output.stdout).unwrap());
            Ok(String::new())
        }
        ["logs", RESTORE] => Ok(cluster.restored.clone().unwrap()),
        ["delete", "pod", RESTORE] => Ok(String::new()),
        ["delete", kinds, "-l", "app.kubernetes.io/name=quota-proxy"] => {
            for kind in kinds.split(',') {
                let mut known = cluster.objects.keys();
                assert!(known.any(|known| known.to_lowercase() == kind), "{kind}");
            }
            cluster.scale(0);
            Ok(String::new())
        }
        _ => Err(format!("unknown: {line}")),
    }
}
