package network

import "github.com/kist-containers/kist/internal/ui"

// Cmds are the subcommands of `kist network`.
type Cmds struct {
	Create     CreateCmd     `cmd:"" help:"Make a network."`
	Ls         ListCmd       `cmd:"" aliases:"list" help:"List networks."`
	Inspect    InspectCmd    `cmd:"" help:"Describe networks as JSON."`
	Exists     ExistsCmd     `cmd:"" help:"Tell by the exit status whether a network is there."`
	Update     UpdateCmd     `cmd:"" help:"Change the DNS servers of a network, for containers that join from now on."`
	Rm         RmCmd         `cmd:"" aliases:"remove" help:"Remove networks."`
	Connect    ConnectCmd    `cmd:"" help:"Join a container to a network."`
	Disconnect DisconnectCmd `cmd:"" help:"Take a container out of a network."`
	Prune      PruneCmd      `cmd:"" help:"Remove the networks that no container is in."`
	Graph      GraphCmd      `cmd:"" help:"Draw networks, their containers and published ports."`
	Reload     ReloadCmd     `cmd:"" help:"Put back the firewall rules of networks and published ports."`
}

// Commands returns the commands of networks.
func Commands() []ui.Command {
	return []ui.Command{
		{Name: "network", Group: "Networks", Help: "Manage networks.", New: func() any { return new(Cmds) }},
	}
}
