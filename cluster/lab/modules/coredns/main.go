// CoreDNS with the plugins that the lab's Corefile names. Its own main package has all plugins, and with
// them the clients of three clouds, which take most of the time to build it.
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
