package comfy

// MaxCacheWork bounds what ComfyUI has to walk before it starts a graph: for every node, connected or not, it makes a
// cache key of all that the node depends on, input by input (comfy_execution/caching.py, get_node_signature). Time and
// memory for it grow with the square of the graph, nothing is heard from ComfyUI meanwhile, and no interrupt stops it.
// Measured on 0.3.75 and a busy CPU: 1,000 nodes in ten layers, five links each (2.5 million inputs), take 105 to 159 s
// and 1.6 GB. A graph of 500 nodes in one piece stays below one million.
const MaxCacheWork = 6_000_000

// cacheWork counts the inputs of all that each node depends on, as far as limit.
func (g *Graph) cacheWork(limit int) int {
	index := make(map[string]int, len(g.order))
	for i, id := range g.order {
		index[id] = i
	}
	feeds := make([][]int, len(g.order))
	weight := make([]int, len(g.order))
	for i, id := range g.order {
		n := g.Nodes[id]
		weight[i] = 1 + len(n.inputs)
		for _, l := range n.links {
			if from, ok := index[l.From]; ok {
				feeds[i] = append(feeds[i], from)
			}
		}
	}
	work := 0
	seen := make([]int, len(g.order)) // by which node, counted from 1
	var todo []int
	for i := range g.order {
		todo = append(todo[:0], i)
		seen[i] = i + 1
		for len(todo) > 0 {
			at := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if work += weight[at]; work > limit {
				return work
			}
			for _, from := range feeds[at] {
				if seen[from] != i+1 {
					seen[from] = i + 1
					todo = append(todo, from)
				}
			}
		}
	}
	return work
}
