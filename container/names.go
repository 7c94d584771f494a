package container

import (
	"math/rand/v2"
	"strconv"
	"strings"
)

// The words of generated names, in docker's manner: an adjective and somebody
// whom the field owes something.
var (
	adjectives = strings.Fields(`admiring agile amazing ample ardent awake bold brave bright brisk calm candid clever cool
		crisp curious daring deft eager earnest elated epic fair fervent festive firm fond focused friendly gallant gentle
		gifted glad happy hardy hopeful humble jolly jovial keen kind laughing lively loving lucid mellow merry mild modest
		neat nice nifty nimble noble optimistic patient peaceful plucky polite practical prompt proud quick quiet quirky
		relaxed ready robust serene sharp sleepy smart snug sober sound stoic sunny swift tender thirsty tidy trusting
		upbeat vibrant vigilant vivid warm wise witty wizardly wonderful youthful zealous zen`)
	surnames = strings.Fields(`allen archimedes babbage backus bardeen bell bohr boole brattain brown carson cerf cohen
		cori curie darwin dijkstra easley edison einstein elion euclid euler faraday fermat fermi feynman franklin galileo
		galois gates gauss germain goldberg goodall hamilton hawking heisenberg hertz hoare hodgkin hofstadter hopper hugle
		hypatia jang jennings joliot kapitsa kare keller kepler khorana kilby kirch knuth kowalevski lamarr lamport leakey
		leavitt lederberg lovelace mayer mccarthy mcclintock mcnulty meitner mendel mirzakhani montalcini moore morse napier
		newton nightingale nobel noether noyce pare pascal pasteur payne perlman pike poincare ptolemy raman ritchie roentgen
		rosalind sammet shannon shockley sinoussi snyder spence stallman swanson swartz swirles tesla thompson torvalds turing
		varahamihira vaughan villani visvesvaraya volhard wescoff wiles williams wilson wing wozniak wright yalow yonath`)
)

// randomName is a name for a container that was given none; after a collision
// a digit is added.
func randomName(try int) string {
	for {
		name := adjectives[rand.IntN(len(adjectives))] + "_" + surnames[rand.IntN(len(surnames))]
		if name == "boring_wozniak" { // docker: Steve Wozniak is not boring
			continue
		}
		if try > 0 {
			name += strconv.Itoa(rand.IntN(10))
		}
		return name
	}
}
