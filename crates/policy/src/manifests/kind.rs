//! The kinds there are: those that Quorate acts on, and their neighbours in Kubernetes that it passes over.

/// A kind that Quorate acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Identity,
    ModelPrice,
    LLMRequestCost,
    GatewayConfig,
    AIGatewayRoute,
    AIBackend,
    AIServiceBackend,
    Backend,
    BackendTLSPolicy,
    BackendSecurityPolicy,
    Secret,
    BackendTrafficPolicy,
    QuotaPolicy,
    Budget,
    RateLimitConfig,
}

pub(crate) const QUORATE: &str = "quorate.dev";
pub(crate) const AI_GATEWAY: &str = "aigateway.envoyproxy.io";
pub(crate) const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";
pub(crate) const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Its objects are written without a head, as envoyproxy/ratelimit reads them.
pub(crate) const RATE_LIMIT: &str = "ratelimit.config.ratelimit";

const AI_VERSIONS: &[&str] = &["v1beta1", "v1alpha1"];
const ALPHA: &[&str] = &["v1alpha1"];

/// Kind, name, group (empty: Kubernetes' own), versions.
const KINDS: [(Kind, &str, &str, &[&str]); 15] = [
    (Kind::Identity, "Identity", QUORATE, ALPHA),
    (Kind::ModelPrice, "ModelPrice", QUORATE, ALPHA),
    (Kind::LLMRequestCost, "LLMRequestCost", AI_GATEWAY, AI_VERSIONS),
    (Kind::GatewayConfig, "GatewayConfig", AI_GATEWAY, AI_VERSIONS),
    (Kind::AIGatewayRoute, "AIGatewayRoute", AI_GATEWAY, AI_VERSIONS),
    (Kind::AIBackend, "AIBackend", AI_GATEWAY, AI_VERSIONS),
    (Kind::AIServiceBackend, "AIServiceBackend", AI_GATEWAY, AI_VERSIONS),
    (Kind::Backend, "Backend", ENVOY_GATEWAY, ALPHA),
    (Kind::BackendTLSPolicy, "BackendTLSPolicy", GATEWAY_API, &["v1", "v1beta1", "v1alpha3", "v1alpha2"]),
    (Kind::BackendSecurityPolicy, "BackendSecurityPolicy", AI_GATEWAY, AI_VERSIONS),
    (Kind::Secret, "Secret", "", &["v1"]),
    (Kind::BackendTrafficPolicy, "BackendTrafficPolicy", ENVOY_GATEWAY, ALPHA),
    (Kind::QuotaPolicy, "QuotaPolicy", AI_GATEWAY, AI_VERSIONS),
    (Kind::Budget, "Budget", QUORATE, ALPHA),
    (Kind::RateLimitConfig, "RateLimitConfig", RATE_LIMIT, &["v3"]),
];

/// Kinds that stand in the same files and are none of Quorate's business. A kind whose absence would let somebody in
/// says so.
const NEIGHBOURS: [(&str, &str); 47] = [
    ("Gateway", ""),
    ("GatewayClass", ""),
    ("HTTPRoute", "Quorate routes by AIGatewayRoute only"),
    ("GRPCRoute", ""),
    ("TLSRoute", ""),
    ("TCPRoute", ""),
    ("UDPRoute", ""),
    ("ListenerSet", ""),
    ("EnvoyGateway", ""),
    ("ReferenceGrant", ""),
    ("EnvoyProxy", ""),
    ("EnvoyPatchPolicy", ""),
    ("EnvoyExtensionPolicy", ""),
    ("ClientTrafficPolicy", ""),
    ("HTTPRouteFilter", ""),
    ("SecurityPolicy", "its authentication is not enforced here; see kind Identity"),
    ("MCPRoute", "Quorate does not serve MCP"),
    ("InferencePool", "use an AIServiceBackend with a Backend in its place"),
    ("InferenceObjective", ""),
    ("InferenceModel", ""),
    ("Namespace", ""),
    ("ConfigMap", ""),
    ("Service", ""),
    ("ServiceAccount", ""),
    ("Deployment", ""),
    ("StatefulSet", ""),
    ("DaemonSet", ""),
    ("ReplicaSet", ""),
    ("Pod", ""),
    ("PersistentVolumeClaim", ""),
    ("NetworkPolicy", ""),
    ("PodDisruptionBudget", ""),
    ("PodMonitor", ""),
    ("ServiceMonitor", ""),
    ("CustomResourceDefinition", ""),
    ("CronJob", ""),
    ("Endpoints", ""),
    ("EndpointSlice", ""),
    ("Certificate", ""),
    ("Issuer", ""),
    ("Job", ""),
    ("Ingress", ""),
    ("Role", ""),
    ("RoleBinding", ""),
    ("ClusterRole", ""),
    ("ClusterRoleBinding", ""),
    ("HorizontalPodAutoscaler", ""),
];

impl Kind {
    pub fn find(name: &str) -> Option<Self> {
        KINDS.iter().find(|known| known.1 == name).map(|known| known.0)
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What `apiVersion` may say.
    pub fn api_versions(self) -> Vec<String> {
        let (_, _, group, versions) = self.row();
        let with_group = |version: &&str| {
            if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") }
        };
        versions.iter().map(with_group).collect()
    }

    /// Names of all kinds, also of the neighbours.
    pub fn names() -> Vec<&'static str> {
        KINDS.iter().map(|known| known.1).chain(NEIGHBOURS.iter().map(|neighbour| neighbour.0)).collect()
    }

    fn row(self) -> &'static (Self, &'static str, &'static str, &'static [&'static str]) {
        // One row for each kind, in their order: a test says so.
        &KINDS[self as usize]
    }
}

/// What to say of a kind that is passed over; `None`: not a neighbour.
pub(crate) fn neighbour(name: &str) -> Option<&'static str> {
    NEIGHBOURS.iter().find(|neighbour| neighbour.0 == name).map(|neighbour| neighbour.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_row() {
        for (index, row) in KINDS.iter().enumerate() {
            assert_eq!(row.0 as usize, index, "{}", row.1);
            assert_eq!(Kind::find(row.1), Some(row.0));
        }
    }
}
