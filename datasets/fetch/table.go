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

// Commits, since branches move. They are those of the repositories' main branches: LongBench's had other prompts, of fewer data sets, before
// its paper.
const (
	hub             = "https://huggingface.co/datasets/"
	raw             = "https://raw.githubusercontent.com/"
	longBenchConfig = raw + "THUDM/LongBench/2e00731f8d0bff23dc4325161044d0ed8af94c1e/LongBench/config/"
	longBenchChat   = raw + "THUDM/LongAlign/450ecc8c9faeafd83a169610fad94d4b7fac1357/LongBench_Chat/"
	mtBench         = raw + "lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/fastchat/llm_judge/data/"
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
			{
				URL: longBenchConfig + "dataset2prompt.json", As: "config/dataset2prompt.json",
				Digests: map[string]string{"config/dataset2prompt.json": "56d22ad4f382169c2b8a11ff4c982a4a1bea096c8152b0f0b85b64686b157c30"},
			},
			{
				URL: longBenchConfig + "dataset2maxlen.json", As: "config/dataset2maxlen.json",
				Digests: map[string]string{"config/dataset2maxlen.json": "72966b3c0933e214591637fb085798c5e687ebff4ddaab5d99bbc31120532022"},
			},
		},
	},
	{
		Name: "longbench-chat", About: "LongBench-Chat's questions, few-shot examples and judge prompt", Home: "https://github.com/THUDM/LongAlign",
		Files: []File{
			{URL: longBenchChat + "test_cases.json", As: "test_cases.json"},
			{
				URL: longBenchChat + "few_shots.json", As: "few_shots.json",
				Digests: map[string]string{"few_shots.json": "1849e4141863b65c2ac5728f8cfb5d1bfbe870cbd36e2c58fc79108755b4178d"},
			},
			{
				URL: longBenchChat + "prompt_fs.txt", As: "prompt_fs.txt",
				Digests: map[string]string{"prompt_fs.txt": "c68efc995bfd8ea586012b91ec59c1b12687f462ab4c1a12e6935056dbe76ef7"},
			},
		},
	},
	{
		Name: "mt-bench", About: "MT-Bench's 80 questions, judge prompts and GPT-4's reference answers", Home: "https://github.com/lm-sys/FastChat/tree/main/fastchat/llm_judge",
		Files: []File{
			{
				URL: mtBench + "mt_bench/question.jsonl", As: "question.jsonl",
				Digests: map[string]string{"question.jsonl": "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7"},
			},
			{
				URL: mtBench + "judge_prompts.jsonl", As: "judge_prompts.jsonl",
				Digests: map[string]string{"judge_prompts.jsonl": "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6"},
			},
			{
				URL: mtBench + "mt_bench/reference_answer/gpt-4.jsonl", As: "reference_answer/gpt-4.jsonl",
				Digests: map[string]string{"reference_answer/gpt-4.jsonl": "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f"},
			},
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
