/** The script of the worker that `WorkerModel` starts. */
import { serve } from './serve.js';

serve();
