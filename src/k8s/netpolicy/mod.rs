//! NetworkPolicies, evaluated: who reaches whom, and who would lose by an intercept.
//!
//! * [`selector`], [`spec`](mod@spec): policies as the API has them
//! * [`party`]: who connects and who is connected to
//! * [`verdict`]: whether one reaches the other, and which policy forbids it
//! * [`losses`]: callers that reach a Service's pods today and would not reach the relay
//! * [`advice`]: what a policy would have to say
//!
//! Pure: what is evaluated was fetched before. The rules are those of
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>. Policies of other
//! kinds (AdminNetworkPolicy, Cilium's, Calico's) are not known here.

pub mod advice;
pub mod losses;
pub mod party;
pub mod selector;
pub mod spec;
#[cfg(test)]
mod tests;
pub mod verdict;
