// Vercel's AI SDK with its provider for OpenAI-compatible servers.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateObject, generateText, streamText, tool } from 'ai'
import { z } from 'zod'

const url = process.env.ARCMTP_URL
const provider = createOpenAICompatible({ name: 'arcmtp', baseURL: `${url}/v1`, supportsStructuredOutputs: true })
const model = provider('tiny')
const options = { model, prompt: 'What is a list?', maxOutputTokens: 600, maxRetries: 0 }
const verdict = z.object({ colour: z.enum(['red', 'green', 'blue']), sure: z.boolean() })

function expect(holds, what) {
    if (!holds) throw new Error(`found ${JSON.stringify(what)}`)
}

const checks = {
    generateText: async () => {
        const { text } = await generateText(options)
        expect(text, text)
    },
    streamText: async () => {
        let text = ''
        for await (const part of streamText({ ...options, onError: () => {} }).fullStream) {
            if (part.type === 'error') throw part.error
            if (part.type === 'text-delta') text += part.text
        }
        expect(text, text)
    },
    'tool, required': async () => {
        const weather = tool({ description: 'The weather', inputSchema: z.object({ days: z.enum(['1', '2']) }) })
        const { toolCalls } = await generateText({ ...options, tools: { weather }, toolChoice: 'required' })
        expect(['1', '2'].includes(toolCalls[0].input.days), toolCalls)
    },
    generateObject: async () => {
        const { object } = await generateObject({ ...options, schema: verdict })
        verdict.parse(object)
    },
}

for (const [tried, check] of Object.entries(checks)) {
    let why = ''
    try {
        await check()
    } catch (error) {
        why = `${error.name}: ${error.message}`.replace(/\s+/g, ' ').slice(0, 300)
    }
    console.log('CHECK ' + JSON.stringify({ tried, ok: !why, why }))
}
