package container

// The examples that --help shows; see kong.HelpProvider.

func (*RunCmd) Help() string {
	return `  kist run --rm hello                                 a first container, without a network
  kist run --rm -it debian bash                       a shell
  kist run -d --name web -p 8080:80 nginx             a server on port 8080
  kist run --rm -v ./html:/usr/share/nginx/html:ro …  a directory of this machine, read-only
  kist run --rm --memory 256m --cpus 1 IMAGE COMMAND  within limits
  kist run --rm -it --rootfs /:O bash                 a throwaway copy of this machine`
}

func (*CreateCmd) Help() string {
	return `  kist create --name db -v data:/var/lib/data IMAGE   made, not started
  kist start -a db                                    started, and looked at`
}

func (*ExecCmd) Help() string {
	return `  kist exec -it web sh                a shell beside what runs
  kist exec -u 1000 -w /tmp web id    as somebody, somewhere
  kist exec -d web COMMAND            in the background`
}

func (*PsCmd) Help() string {
	return `  kist ps -a                                          also those that do not run
  kist ps -f status=exited -f label=app=web           some
  kist ps --format 'table {{.Names}}\t{{.Status}}'    columns of your own
  kist rm $(kist ps -aq -f status=exited)             IDs for another command`
}

func (*LogsCmd) Help() string {
	return `  kist logs -f --tail 20 web          the last lines, then what follows
  kist logs --since 10m -t web        of the last ten minutes, with times`
}

func (*StopCmd) Help() string {
	return `  kist stop web                       its stop signal, SIGKILL after ten seconds
  kist stop -t 60 web db              with more patience`
}

func (*RmCmd) Help() string {
	return `  kist rm web                         with its files
  kist rm -fv web                     also if it runs, and its anonymous volumes`
}

func (*InspectCmd) Help() string {
	return `  kist inspect web                                    all that is known
  kist inspect -f '{{.State.Status}}' web             one fact
  kist inspect -f '{{json .Mounts}}' web              a part as JSON`
}

func (*CpCmd) Help() string {
	return `  kist cp web:/etc/nginx/nginx.conf .                 out of a container
  kist cp ./site/. web:/usr/share/nginx/html          into it
  tar c src | kist cp - web:/tmp                      from a tar stream`
}

func (*CommitCmd) Help() string {
	return `  kist commit web mine:1                              an image of its changes
  kist commit -c 'CMD ["nginx"]' -m "why" web mine:2  with another command`
}

func (*EventsCmd) Help() string {
	return `  kist events --since 1h -f event=die                 what ended in the last hour
  kist events --format '{{json .}}'                   from now on, for a program`
}

func (*StatsCmd) Help() string {
	return `  kist stats                          live, all that run
  kist stats --no-stream web          once`
}

func (*UpdateCmd) Help() string {
	return `  kist update --memory 1g --cpus 2 web                while it runs
  kist update --restart unless-stopped web            another policy`
}
