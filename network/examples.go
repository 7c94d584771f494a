package network

// The examples that --help shows; see kong.HelpProvider.

func (*CreateCmd) Help() string {
	return `  kist network create app                             containers find one another by name
  kist network create --subnet 10.5.0.0/24 --internal db
  kist network create -d macvlan -o parent=eth0 --subnet 192.168.1.0/24 lan`
}

func (*ConnectCmd) Help() string {
	return `  kist network connect app web                        while it runs
  kist network connect --ip 10.5.0.9 --alias db app postgres`
}
