package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/kist-containers/kist/internal/ui"
)

// CompletionCmd is `kist completion`.
type CompletionCmd struct {
	File string `short:"f" help:"Write to a file instead of standard output." placeholder:"FILE"`
	// NoDesc is podman's; these scripts describe nothing.
	NoDesc bool   `hidden:""`
	Shell  string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Each script asks kist itself: the commands of `kist --help`, the flags of a
// command's --help, and the names of the objects that it works on.
const (
	bashScript = `# kist completion for bash: source <(kist completion bash)
_kist() {
	local word=${COMP_WORDS[COMP_CWORD]} line=("${COMP_WORDS[@]:1:COMP_CWORD-1}") list
	if [[ $word == -* ]]; then
		list=$(kist "${line[@]}" --help 2>/dev/null | grep -oE -- '(^|[ ,])--?[a-z][a-z0-9-]*' | tr -d ' ,')
	elif [[ $COMP_CWORD == 1 ]]; then
		list=$(kist --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p')
	else
		case ${line[-1]} in
		container|image|network|volume|system|builder|buildx|healthcheck|secret|manifest|quadlet|generate)
			list=$(kist "${line[@]}" --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\).*/\1/p') ;;
		*) list=$(_kist_names "${line[0]} ${line[1]-}") ;;
		esac
	fi
	COMPREPLY=($(compgen -W "$list" -- "$word"))
}
_kist_names() {
	case $1 in
	"run "*|"create "*|"rmi "*|"push "*|"tag "*|"save "*|"history "*|"image "*) kist images --format '{{.Repository}}:{{.Tag}}' ;;
	"network "*) kist network ls --format '{{.Name}}' ;;
	"volume "*) kist volume ls -q ;;
	"stop "*|"kill "*|"exec "*|"attach "*|"pause "*|"top "*|"stats "*) kist ps --format '{{.Names}}' ;;
	*) kist ps -a --format '{{.Names}}' ;;
	esac 2>/dev/null
}
complete -o default -F _kist kist
`
	zshScript = `#compdef kist
# kist completion for zsh: source <(kist completion zsh)
autoload -U +X bashcompinit && bashcompinit
` + bashScript
	fishScript = `# kist completion for fish: kist completion fish | source
function __kist_complete
	set -l line (commandline -opc)[2..-1]
	if string match -q -- '-*' (commandline -ct)
		kist $line --help 2>/dev/null | grep -oE -- '(^|[ ,])--?[a-z][a-z0-9-]*' | tr -d ' ,'
	else if test (count $line) = 0
		kist --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'
	else
		switch $line[-1]
			case container image network volume system builder healthcheck secret manifest quadlet generate
				kist $line --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\).*/\1/p'
			case '*'
				switch $line[1]
					case run create rmi push tag save history image
						kist images --format '{{.Repository}}:{{.Tag}}'
					case network
						kist network ls --format '{{.Name}}'
					case volume
						kist volume ls -q
					case '*'
						kist ps -a --format '{{.Names}}'
				end
		end
	end
end
complete -c kist -f -a '(__kist_complete)'
`
)

// Run prints the script.
func (c *CompletionCmd) Run(out *ui.Output) error {
	script := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[c.Shell]
	if c.File != "" {
		// A shell of any user is to read it, wherever its owner put it.
		if err := errors.Join(os.WriteFile(c.File, []byte(script), 0o644), os.Chmod(c.File, 0o644)); err != nil {
			return fmt.Errorf("completion: %w", err)
		}
		return nil
	}
	if out.Out == nil {
		return nil
	}
	_, err := fmt.Fprint(out.Out, script)
	return err
}
