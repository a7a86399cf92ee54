//! Routing of tokens whose scores are there already: one workgroup a token, see [`super::choice`].

use kiln_bundle::Access;

use super::builder::{Builder, KernelError, KernelSource};
use super::choice::{self, PerExpert, choose};
use super::names::strided;
use super::{Capability, RouteKernelSpec};

pub fn build(spec: &RouteKernelSpec, capability: Capability) -> Result<KernelSource, KernelError> {
    let route = choice::name(spec.experts, &spec.route, spec.selection_bias);
    let name = format!("route_{route}{}", strided(spec.scores, spec.experts));
    choice::check(spec.experts, &spec.route, &name)?;
    let b = Builder::new(name, spec.experts.next_power_of_two().clamp(32, 256), capability);
    body(&b, spec);
    b.finish()
}

fn body(b: &Builder, spec: &RouteKernelSpec) {
    let x = b.storage::<f32>("x", Access::Read);
    let selection_bias = spec
        .selection_bias
        .then(|| b.storage::<f32>("selection_bias", Access::Read));
    let selection_bias = selection_bias.map(|bias| PerExpert::new(b, bias, spec.experts, "own_selection_bias"));
    let routing = b.storage::<[u32; 2]>("routing", Access::ReadWrite);

    let token = b.group().x();
    let source = (token * spec.scores.stride + spec.scores.offset).named("source");
    let first = (token * spec.route.experts_per_token).named("first_assignment");
    choose(
        b,
        &spec.route,
        spec.experts,
        |expert| x.load(source + expert),
        selection_bias,
        routing,
        first,
    );
}
