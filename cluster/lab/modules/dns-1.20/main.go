// The last CoreDNS that knows EndpointSlices v1beta1, with the plugins that the lab's Corefile names (see
// ../coredns).
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/ready"
)

// In the order in which they see a question, as in CoreDNS' plugin.cfg.
func init() {
	dnsserver.Directives = []string{"bind", "ready", "errors", "loadbalance", "kubernetes"}
}

func main() {
	coremain.Run()
}
