package fetch

// Item is something that can be fetched: one or more files from their publishers.
type Item struct {
	Name  string
	About string
	// Home is where people read about it, its terms included.
	Home  string
	Files []File
}

// File is one download.
type File struct {
	URL string
	// As is its name in the item's directory; for an archive the directory to unpack into, "." for the item's own.
	As string
	// Archive is zip or tar.gz; empty for a plain file.
	Archive string
	// Below keeps only an archive's members below that directory, without it, and of those only the ones that Keep names; empty keeps all.
	Below string
	Keep  []string
	// Digests are the sha256 of files by their name in the item's directory, where they are known; for others the lock file's first
	// entry decides.
	Digests map[string]string
}

const (
	hub = "https://huggingface.co/datasets/"
	raw = "https://raw.githubusercontent.com/THUDM/"
	// A commit, since branches move.
	longBenchConfig = raw + "LongBench/f6227eb7a25cacbd96310aea2c59af003f8d8925/config/"
)

// Table lists what can be fetched, by name.
var Table = []Item{
	{
		Name: "longalign-10k", About: "the paper's long instructions, messages JSONL", Home: hub + "THUDM/LongAlign-10k",
		Files: []File{{URL: hub + "THUDM/LongAlign-10k/resolve/main/long.jsonl", As: "long.jsonl"}},
	},
	{
		Name: "longalpaca-12k", About: "LongAlpaca's instructions, 9k long and 3k short", Home: hub + "Yukang/LongAlpaca-12k",
		Files: []File{{URL: hub + "Yukang/LongAlpaca-12k/resolve/main/LongAlpaca-12k.json", As: "LongAlpaca-12k.json"}},
	},
	{
		Name: "sharegpt", About: "short ShareGPT conversations, cleaned", Home: hub + "anon8231489123/ShareGPT_Vicuna_unfiltered",
		Files: []File{{
			URL: hub + "anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main/ShareGPT_V3_unfiltered_cleaned_split.json", As: "sharegpt.json",
		}},
	},
	{
		Name: "longbench", About: "LongBench's 21 test sets and LongBench-E, with prompts and maximum lengths", Home: hub + "THUDM/LongBench",
		Files: []File{
			{URL: hub + "THUDM/LongBench/resolve/main/data.zip", As: "data", Archive: "zip", Below: "data"},
			{URL: longBenchConfig + "dataset2prompt.json", As: "config/dataset2prompt.json"},
			{URL: longBenchConfig + "dataset2maxlen.json", As: "config/dataset2maxlen.json"},
		},
	},
	{
		Name: "longbench-chat", About: "LongBench-Chat's questions, few-shot examples and judge prompt", Home: "https://github.com/THUDM/LongAlign",
		Files: []File{
			{URL: raw + "LongAlign/main/LongBench_Chat/test_cases.json", As: "test_cases.json"},
			{URL: raw + "LongAlign/main/LongBench_Chat/few_shots.json", As: "few_shots.json"},
			{URL: raw + "LongAlign/main/LongBench_Chat/prompt_fs.txt", As: "prompt_fs.txt"},
		},
	},
	{
		Name: "jieba", About: "jieba 0.42.1's dictionary and model, which Chinese LongBench scores need", Home: "https://pypi.org/project/jieba/0.42.1/",
		Files: []File{{
			URL: "https://files.pythonhosted.org/packages/c6/cb/18eeb235f833b726522d7ebed54f2278ce28ba9438e3135ab0278d9792a2/jieba-0.42.1.tar.gz",
			As:  ".", Archive: "tar.gz", Below: "jieba-0.42.1/jieba",
			Keep:    []string{"dict.txt", "finalseg/prob_start.py", "finalseg/prob_trans.py", "finalseg/prob_emit.py"},
			Digests: map[string]string{"dict.txt": "7197c3211ddd98962b036cdf40324d1ea2bfaa12bd028e68faa70111a88e12a8"},
		}},
	},
}
