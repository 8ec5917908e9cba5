package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

// webhooksCommand are the commands about messages that tell of a job's end.
func webhooksCommand(env Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "webhooks",
		Short: "See and repeat the messages that tell of a job's end, and what they are verified with",
		Long:  `A job with a webhook_url tells its receiver how it has ended, signed as Standard Webhooks asks for: docs/webhooks.md.`,
		Example: `  comfyd submit workflow.json --webhook https://example.com/hook --no-wait
  comfyd webhooks log 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69
  comfyd webhooks replay 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69
  comfyd webhooks secret`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("%q is no command of webhooks; see '%s --help'", args[0], c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(webhookLogCommand(env), webhookReplayCommand(env), webhookSecretCommand(env))
	return c
}

func webhookLogCommand(env Env) *cobra.Command {
	var s server
	c := &cobra.Command{
		Use:               "log ID",
		Short:             "Show the attempts to tell a job's receiver",
		Long:              `Show each attempt to tell a job's receiver: when it was, what the receiver answered, how long that took; and when the next one is.`,
		Example:           `  comfyd webhooks log 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69`,
		Args:              one("job id"),
		ValidArgsFunction: s.completeOneJob(env, ""),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := s.client(env, newScreen(env))
			if err != nil {
				return err
			}
			w, err := api.Webhook(c.Context(), args[0])
			if err != nil {
				return explain(err, nil)
			}
			return s.printWebhook(env, w)
		},
	}
	s.flags(c)
	return c
}

func webhookReplayCommand(env Env) *cobra.Command {
	var s server
	c := &cobra.Command{
		Use:   "replay ID",
		Short: "Tell a job's receiver once more",
		Long: `Send the message about a job's end once more, at once, and again on the schedule of its attempts where that fails. It has the
same webhook-id as before, so that a receiver can tell that it has had it.`,
		Example:           `  comfyd webhooks replay 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69`,
		Args:              one("job id"),
		ValidArgsFunction: s.completeOneJob(env, ""),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := s.client(env, newScreen(env))
			if err != nil {
				return err
			}
			w, err := api.ReplayWebhook(c.Context(), args[0])
			switch {
			case err != nil:
				return explain(err, nil)
			case s.json:
				return printJSON(env.Out, w)
			}
			_, err = fmt.Fprintf(env.Out, "%s is on its way to %s; see: comfyd webhooks log %s\n", w.MessageID, printable(w.URL), w.ID)
			return err
		},
	}
	s.flags(c)
	return c
}

func webhookSecretCommand(env Env) *cobra.Command {
	var s server
	c := &cobra.Command{
		Use:   "secret",
		Short: "Print the secrets that a receiver verifies messages with",
		Long: `Print the secrets of the key's tenant, one a line; a message is signed with each of them. A receiver gives one to a library of
Standard Webhooks (https://www.standardwebhooks.com), together with the body as it came and the headers webhook-id,
webhook-timestamp and webhook-signature:

  Python      pip install standardwebhooks
              Webhook(secret).verify(body, headers)
  JavaScript  npm install standardwebhooks
              new Webhook(secret).verify(body, headers)
  Go          go get github.com/standard-webhooks/standard-webhooks/libraries
              wh, err := standardwebhooks.NewWebhook(secret); err = wh.Verify(body, r.Header)

Whole receivers in the three, and how secrets are changed: docs/webhooks.md.`,
		Example: `  comfyd webhooks secret`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := s.client(env, newScreen(env))
			if err != nil {
				return err
			}
			secrets, err := api.WebhookSecrets(c.Context())
			switch {
			case err != nil:
				return explain(err, nil)
			case s.json:
				return printJSON(env.Out, map[string][]string{"secrets": secrets})
			}
			_, err = fmt.Fprintln(env.Out, printable(strings.Join(secrets, "\n")))
			return err
		},
	}
	s.flags(c)
	return c
}

// printWebhook is the log for a person, an attempt a line.
func (s *server) printWebhook(env Env, w client.Webhook) error {
	if s.json {
		return printJSON(env.Out, w)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s\n", w.State, w.MessageID, w.URL)
	for _, d := range w.Attempts {
		fmt.Fprintf(&b, "%s  %-9s  %5d ms", d.At.Local().Format(time.DateTime), d.Outcome, d.DurationMS)
		if d.Outcome == comfy.Delivered {
			fmt.Fprintf(&b, "  HTTP %d", d.HTTPStatus)
		} else {
			fmt.Fprintf(&b, "  %s", d.Error)
		}
		if d.Replay {
			b.WriteString(" (replay)")
		}
		if answer := strings.Join(strings.Fields(d.Answer), " "); answer != "" {
			fmt.Fprintf(&b, ": %s", short(answer, 80))
		}
		b.WriteString("\n")
	}
	if w.NextAttemptAt != nil {
		fmt.Fprintf(&b, "the next attempt is at %s\n", w.NextAttemptAt.Local().Format(time.DateTime))
	}
	_, err := fmt.Fprint(env.Out, printable(b.String()))
	return err
}
